//! What can be wrong with a configuration, always with the layer that said it.

use crate::layer::Origin;

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that is no TOML. Raised when a section is asked for, so that commands without need of one still work.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// The layer.
        origin: Origin,
        /// Line, column and reason, on one line.
        message: String,
    },
    /// A value of the wrong kind, or out of range.
    #[error("`{key}` must be {expected}, {origin} says {got}")]
    Value {
        /// The key.
        key: String,
        /// What would be right.
        expected: String,
        /// What stands there, in TOML.
        got: String,
        /// The layer.
        origin: Origin,
    },
    /// A key that no layer sets; only possible when the built-in layer was left out.
    #[error("`{0}` is not set")]
    Unset(&'static str),
    /// A profile name that is none of the built-in ones.
    #[error("there is no profile `{name}`, known are public, lan, private and offline")]
    UnknownProfile {
        /// The name that was asked for.
        name: String,
    },
}
