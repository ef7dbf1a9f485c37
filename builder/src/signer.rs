//! Who vouches for what is built here. Behind a trait, because a key need not exist before something was built.

use std::io;

use base::{Cid, PublicKey, Realisation, SecretKey, SignedRealisation};

/// Signs what is built.
pub trait Signer: Send + Sync {
    /// The key that outputs built here are recognised by, if there is one yet.
    fn public(&self) -> Option<PublicKey>;

    /// Signs that a build gave this output, and with which inputs, if there is a list of them.
    ///
    /// # Errors
    /// When there is no key and none can be made.
    fn vouch(&self, realisation: Realisation, inputs: Option<Cid>)
    -> io::Result<SignedRealisation>;
}

impl Signer for SecretKey {
    fn public(&self) -> Option<PublicKey> {
        Some(Self::public(self))
    }

    fn vouch(
        &self,
        realisation: Realisation,
        inputs: Option<Cid>,
    ) -> io::Result<SignedRealisation> {
        Ok(realisation.sign_with(self, inputs))
    }
}
