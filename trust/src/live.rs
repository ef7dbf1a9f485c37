//! A policy that may learn while it is in use: a search brings statements about keys along with those about outputs, and a
//! revocation counts for what came with it.

use std::sync::{Arc, PoisonError, RwLock};

use crate::TrustPolicy;

/// The policy that holds now.
#[derive(Debug)]
pub struct LivePolicy(RwLock<Arc<TrustPolicy>>);

impl LivePolicy {
    /// Begins with this one.
    pub fn new(policy: TrustPolicy) -> Self {
        Self(RwLock::new(Arc::new(policy)))
    }

    /// What holds now. Whoever decides something asks once, so that one decision is made by one policy.
    pub fn now(&self) -> Arc<TrustPolicy> {
        // Only whole policies are ever put there, so a panic elsewhere leaves one.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this one holds.
    pub fn replace(&self, policy: TrustPolicy) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }
}

impl From<TrustPolicy> for LivePolicy {
    fn from(policy: TrustPolicy) -> Self {
        Self::new(policy)
    }
}
