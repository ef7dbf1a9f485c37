//! What to do about an error: lines with the exact command, found by looking through the chain of causes.

use std::error::Error;

/// The hints for an error, most helpful first.
pub fn of(error: &anyhow::Error) -> Vec<String> {
    error.chain().flat_map(of_cause).collect()
}

fn of_cause(cause: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = cause.downcast_ref::<recipe::Error>() {
        return error.hint().into_iter().collect();
    }
    Vec::new()
}
