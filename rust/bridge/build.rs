//! Tells the library which profile it was built with: `quick` builds are not for measuring, and say `release` elsewhere.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // …/target/PROFILE/build/headrace-bridge-HASH/out
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let profile = out.ancestors().nth(3).and_then(Path::file_name).expect("cargo has laid it out").to_string_lossy();
    println!("cargo::rustc-env=HEADRACE_PROFILE={profile}");
}
