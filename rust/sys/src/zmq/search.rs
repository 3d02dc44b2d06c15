//! Finding pyzmq's libzmq where no Python tells the path: in tests, examples and benches.

use std::env;
use std::path::{Path, PathBuf};

/// The variable that names libzmq, or several separated by colons.
const VARIABLE: &str = "HEADRACE_LIBZMQ";

/// What [`Library::open`](super::Library::open) should try: the libraries in `HEADRACE_LIBZMQ`, then pyzmq's under
/// `VIRTUAL_ENV`, in a `.venv` here or above, and beside each `python3` on the `PATH`. Looks at directories only, and
/// runs nothing.
pub fn find_candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = env::var_os(VARIABLE).iter().flat_map(env::split_paths).collect();
    let search: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    let beside_python = search.iter().filter(|bin| bin.join("python3").exists()).filter_map(|bin| bin.parent());
    let environment = env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let here = env::current_dir().unwrap_or_default();
    let above: Vec<PathBuf> = here.ancestors().map(|directory| directory.join(".venv")).collect();
    for prefix in environment.as_deref().into_iter().chain(above.iter().map(PathBuf::as_path)).chain(beside_python) {
        for python in entries(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                found.extend(entries(&python.join(packages).join("pyzmq.libs"), "libzmq"));
            }
        }
    }
    found
}

fn entries(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}
