//! What goes wrong is told to the user in one line.

use std::fmt;

/// The one line that ends a run.
#[derive(Debug)]
pub struct Failure(String);

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(message: impl fmt::Display) -> Self {
        // Messages of other crates may hold line breaks; the user gets one line.
        Failure(message.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<narrowgauge::Error> for Failure {
    fn from(error: narrowgauge::Error) -> Self {
        Failure::new(error)
    }
}

/// Returns a [`Failure`] with a formatted message; `Failure` is to be in scope.
macro_rules! fail {
    ($($message:tt)*) => {
        return Err(Failure::new(format!($($message)*)))
    };
}
pub(crate) use fail;
