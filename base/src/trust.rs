//! The trust policy as a pure decision: which of the realisations offered for a package may be used.
//!
//! Trust is not transitive and never implied by who delivered the bytes: a realisation counts when its *signer* is named
//! in the policy, and an output is accepted when enough distinct trusted signers agree on exactly the same output.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Cid, PkgHash, PublicKey, Realisation, Sha256, SignedRealisation};

/// Whose realisations count, and how many of them must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    keys: BTreeSet<PublicKey>,
    threshold: usize,
}

/// What the policy says about a set of realisations of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough trusted signers agree on this output.
    Trusted(Realisation),
    /// There are realisations, but none by a trusted signer. The signers are listed for the user's hint.
    Untrusted(Vec<PublicKey>),
    /// Trusted signers agree, but too few of them.
    TooFew {
        /// How many distinct trusted signers stand behind the best-supported output.
        have: usize,
        /// How many the policy asks for.
        need: usize,
    },
    /// Two different outputs have enough trusted signers each: somebody is wrong, and using either would be a guess.
    Conflict(Vec<Realisation>),
    /// No realisation of this package was offered.
    Missing,
}

impl TrustPolicy {
    /// A policy in which `threshold` of `keys` must agree; a threshold of 0 is read as 1.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            threshold,
        }
    }

    /// The trusted keys.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter()
    }

    /// How many distinct trusted signers must agree, at least 1.
    pub fn threshold(&self) -> usize {
        self.threshold.max(1)
    }

    /// Judges realisations; those of other packages than `pkghash` are ignored.
    pub fn judge(&self, pkghash: &PkgHash, offered: &[SignedRealisation]) -> Verdict {
        let of_package: Vec<_> = offered
            .iter()
            .filter(|s| s.realisation().pkghash == *pkghash)
            .collect();
        let mut signers: BTreeMap<OutputKey, (BTreeSet<PublicKey>, &Realisation)> = BTreeMap::new();
        for signed in of_package.iter().filter(|s| self.keys.contains(s.signer())) {
            let realisation = signed.realisation();
            let key = (realisation.sha256, realisation.size, realisation.output);
            let entry = signers
                .entry(key)
                .or_insert_with(|| (BTreeSet::new(), realisation));
            entry.0.insert(*signed.signer());
        }
        let enough: Vec<_> = signers
            .values()
            .filter(|(keys, _)| keys.len() >= self.threshold())
            .map(|(_, realisation)| (*realisation).clone())
            .collect();
        match (
            &enough[..],
            signers.values().map(|(keys, _)| keys.len()).max(),
        ) {
            ([only], _) => Verdict::Trusted(only.clone()),
            ([], Some(have)) => Verdict::TooFew {
                have,
                need: self.threshold(),
            },
            ([], None) if of_package.is_empty() => Verdict::Missing,
            ([], None) => Verdict::Untrusted(distinct_signers(&of_package)),
            _ => Verdict::Conflict(enough),
        }
    }
}

/// What two signers must say alike to agree.
type OutputKey = (Sha256, u64, Cid);

fn distinct_signers(realisations: &[&SignedRealisation]) -> Vec<PublicKey> {
    let signers: BTreeSet<_> = realisations.iter().map(|s| *s.signer()).collect();
    signers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, SecretKey, block_cid};

    fn package() -> PkgHash {
        PkgHash::of_derivation(b"package")
    }

    fn signed(by: u8, output: &[u8]) -> SignedRealisation {
        let sha256 = Sha256::of(output);
        let output = block_cid(Codec::Raw, &sha256);
        Realisation {
            pkghash: package(),
            output,
            sha256,
            size: 1,
        }
        .sign(&SecretKey::from_seed(&[by; 32]))
    }

    fn policy(keys: &[u8], threshold: usize) -> TrustPolicy {
        TrustPolicy::new(
            keys.iter()
                .map(|k| SecretKey::from_seed(&[*k; 32]).public()),
            threshold,
        )
    }

    #[test]
    fn one_trusted_signer_is_enough_by_default() {
        let offered = [signed(1, b"good"), signed(9, b"evil")];
        let verdict = policy(&[1], 0).judge(&package(), &offered);
        assert_eq!(verdict, Verdict::Trusted(offered[0].realisation().clone()));
    }

    #[test]
    fn strangers_are_named_and_never_believed() {
        let offered = [signed(9, b"evil"), signed(9, b"evil")];
        let stranger = SecretKey::from_seed(&[9; 32]).public();
        assert_eq!(
            policy(&[1], 1).judge(&package(), &offered),
            Verdict::Untrusted(vec![stranger])
        );
        assert_eq!(policy(&[], 1).judge(&package(), &[]), Verdict::Missing);
    }

    #[test]
    fn one_signer_repeated_does_not_reach_a_threshold_of_two() {
        let offered = [signed(1, b"good"), signed(1, b"good"), signed(2, b"other")];
        let verdict = policy(&[1, 2], 2).judge(&package(), &offered);
        assert_eq!(verdict, Verdict::TooFew { have: 1, need: 2 });
        let offered = [signed(1, b"good"), signed(2, b"good")];
        assert!(matches!(
            policy(&[1, 2], 2).judge(&package(), &offered),
            Verdict::Trusted(_)
        ));
    }

    #[test]
    fn trusted_signers_who_contradict_each_other_stop_everything() {
        let offered = [signed(1, b"one"), signed(2, b"two")];
        let verdict = policy(&[1, 2], 1).judge(&package(), &offered);
        assert!(matches!(verdict, Verdict::Conflict(outputs) if outputs.len() == 2));
    }

    #[test]
    fn a_realisation_of_another_package_does_not_count() {
        let other = PkgHash::of_derivation(b"another");
        assert_eq!(
            policy(&[1], 1).judge(&other, &[signed(1, b"good")]),
            Verdict::Missing
        );
    }
}
