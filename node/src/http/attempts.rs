//! What was tried for one source, and what to say of it if nothing came.

use std::error::Error;
use std::fmt;

use store::substitute::{Asked, FetchError};

use super::origin;
use super::transfer::Failure;

/// URLs named in an error; more would hide what matters.
const URLS_SHOWN_MAX: usize = 6;

/// URLs that gave nothing, each with its last failure.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: Vec<(String, Failure)>,
    /// Second chances have been given.
    second: bool,
}

impl Attempts {
    /// Notes a failure.
    pub(super) fn push(&mut self, url: String, failure: Failure) {
        self.failures.push((url, failure));
    }

    /// The URLs that failed for the first time, by something that may pass: to be tried once more.
    pub(super) fn take_second_chances(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.second, true) {
            return Vec::new();
        }
        let (again, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.failures)
            .into_iter()
            .partition(|(_, failure)| failure.may_pass());
        // Of those that are tried again only the second failure counts.
        self.failures = over;
        again.into_iter().map(|(url, _)| url).collect()
    }

    /// Who was asked, and one more if that one had it.
    pub(super) fn asked(&self, found: bool) -> Asked {
        let mut asked = Asked {
            caches: self.failures.len() as u32 + u32::from(found),
            ..Asked::default()
        };
        for (_, failure) in &self.failures {
            match failure {
                Failure::Unreachable(_) => asked.unreachable += 1,
                Failure::Refused(_) => asked.refused += 1,
                Failure::TimedOut => asked.timed_out += 1,
                Failure::Invalid { .. } => asked.invalid += 1,
                Failure::Broken(_) => asked.failed += 1,
                Failure::Missing | Failure::Fatal(_) => {}
            }
        }
        asked
    }

    /// The failure that says most: wrong bytes, then trouble on the way, then a refusal, then a plain miss.
    pub(super) fn into_error(self) -> FetchError {
        let asked = self.asked(false);
        let mut refused = None;
        let mut trouble = Vec::new();
        for (url, failure) in self.failures {
            match failure {
                Failure::Fatal(error) => return error,
                Failure::Invalid { expected, got } => {
                    let from = origin(&url);
                    return FetchError::Invalid {
                        expected,
                        got,
                        from,
                    };
                }
                Failure::Refused(reason) => {
                    let from = origin(&url);
                    refused = Some(FetchError::Refused { from, reason });
                }
                Failure::TimedOut => trouble.push((url, None)),
                Failure::Unreachable(cause) => trouble.push((url, Some(cause.into()))),
                Failure::Broken(cause) => trouble.push((url, Some(cause))),
                Failure::Missing => {}
            }
        }
        if trouble.is_empty() {
            return refused.unwrap_or(FetchError::Missing { asked });
        }
        if trouble.iter().all(|(_, cause)| cause.is_none()) {
            return FetchError::TimedOut { asked };
        }
        let source = Box::new(Trouble(trouble));
        FetchError::Failed { source }
    }
}

/// A URL and what went wrong; nothing for a passed deadline.
type Spot = (String, Option<Box<dyn Error + Send + Sync>>);

/// Several URLs, none of which worked, each for its own reason.
#[derive(Debug)]
struct Trouble(Vec<Spot>);

impl Error for Trouble {}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot fetch ")?;
        for (number, (url, cause)) in self.0.iter().take(URLS_SHOWN_MAX).enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            write!(f, "{separator}`{url}`: ")?;
            match cause {
                Some(cause) => write!(f, "{cause}")?,
                None => f.write_str("timed out")?,
            }
        }
        match self.0.len().saturating_sub(URLS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
