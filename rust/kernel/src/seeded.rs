//! Bugs to be found: each test of the tests plants one, and whoever tests must notice. Without the feature `seeded-bugs` there
//! is nothing of this in a build.

/// Whether the bug of this name is planted; `false` in every build that is not made to test tests.
#[cfg(not(feature = "seeded-bugs"))]
#[macro_export]
macro_rules! seeded {
    ($bug:literal) => {
        false
    };
}

/// Whether the bug of this name is planted.
#[cfg(feature = "seeded-bugs")]
#[macro_export]
macro_rules! seeded {
    ($bug:literal) => {
        $crate::seeded::is_planted($bug)
    };
}

#[cfg(feature = "seeded-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Plants the bug of this name in all that this thread runs from now on, in place of the one before; "" plants none.
#[cfg(feature = "seeded-bugs")]
pub fn plant(bug: &'static str) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
#[cfg(feature = "seeded-bugs")]
pub fn is_planted(bug: &str) -> bool {
    PLANTED.get() == bug
}
