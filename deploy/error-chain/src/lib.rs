//! Formats an error and its sources in one line, for log fields and diagnostics.

#![forbid(unsafe_code)]

use std::{error::Error, fmt};

/// Displays an error followed by each of its sources: `a: b: c`.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(&'a (dyn Error + 'static));

/// Borrows `error` for display with all of its sources.
///
/// ```
/// let source = std::io::Error::other("connection reset");
/// assert_eq!(error_chain::chain(&source).to_string(), "connection reset");
/// ```
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> ErrorChain<'a> {
    ErrorChain(error)
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn every_source_follows_its_error() {
        let error = Layer(
            "a",
            Some(Box::new(Layer("b", Some(Box::new(Layer("c", None)))))),
        );
        assert_eq!(chain(&error).to_string(), "a: b: c");
        assert_eq!(chain(&Layer("a", None)).to_string(), "a");
    }
}
