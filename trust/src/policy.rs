//! The decision: which of the realisations offered for a package may be used.

use std::collections::{BTreeMap, BTreeSet};

use base::{Cid, PackageName, PkgHash, PublicKey, Realisation, Sha256, SignedRealisation};

use crate::ring::{Member, Ring, Seating, Standing};
use crate::rule::{Node, Rule, RuleError};
use crate::{Discount, Testimony};

/// Whose realisations count at one point in time, and how many of them must agree.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    seating: Seating,
    rule: Node,
    /// The rule as text, if it is more than a count of trusted keys.
    rule_text: Option<String>,
    now_unix_secs: u64,
    anyone: bool,
}

/// What the policy says about a set of realisations of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough trusted signers agree on this output.
    Trusted(Realisation),
    /// There are realisations, but none that counts. The signers whom it would help to trust are listed.
    Untrusted(Vec<PublicKey>),
    /// Trusted signers agree, but too few of them.
    TooFew {
        /// How many parts of the rule the best-supported output satisfies: with a plain threshold, how many signers it has.
        have: usize,
        /// How many the policy asks for.
        need: usize,
    },
    /// Two different outputs satisfy the rule: somebody is wrong, and using either would be a guess.
    Conflict(Vec<Realisation>),
    /// No realisation of this package was offered.
    Missing,
}

/// What two signers must say alike to agree.
type OutputKey = (Sha256, u64, Cid);

fn output_of(realisation: &Realisation) -> OutputKey {
    (realisation.sha256, realisation.size, realisation.output)
}

/// Realisations by what they say, with the places that say it.
type Support<'a> = BTreeMap<OutputKey, (BTreeSet<usize>, &'a Realisation)>;

impl TrustPolicy {
    /// A policy in which `threshold` of `keys` must agree; a threshold of 0 is read as 1.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Self {
        let ring = Ring {
            members: keys.into_iter().map(Member::new).collect(),
            ..Ring::default()
        };
        let seating = Seating::of(&ring);
        let rule = Node::flat(threshold, seating.places.len());
        Self::seated(seating, rule, None, 0)
    }

    /// The policy that a rule and a ring of keys make at a time.
    ///
    /// # Errors
    /// [`RuleError`] when the rule names somebody who is not in the ring, or twice.
    pub fn of(ring: &Ring, rule: &Rule, now_unix_secs: u64) -> Result<Self, RuleError> {
        let seating = Seating::of(ring);
        let node = seating.rule(rule)?;
        let text = match rule {
            Rule::Flat(_) => None,
            Rule::Nested(term) => Some(term.to_string()),
        };
        Ok(Self::seated(seating, node, text, now_unix_secs))
    }

    fn seated(seating: Seating, rule: Node, rule_text: Option<String>, now_unix_secs: u64) -> Self {
        Self {
            seating,
            rule,
            rule_text,
            now_unix_secs,
            anyone: false,
        }
    }

    /// The same, but where it finds nothing trusted, a single output that nobody contradicts is used whoever signed it.
    #[must_use]
    pub fn or_anyone(mut self) -> Self {
        self.anyone = true;
        self
    }

    /// The keys that have a place, whether or not they count at the moment.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.seating.voices.keys()
    }

    /// How many parts of the rule must be satisfied: with a plain threshold, how many distinct signers must agree.
    pub fn threshold(&self) -> usize {
        self.rule.have(&BTreeSet::new()).1
    }

    /// The rule, if it is more than a count of trusted keys.
    pub fn rule(&self) -> Option<&str> {
        self.rule_text.as_deref()
    }

    /// Judges realisations of a package; those of other packages than `pkghash` are ignored.
    pub fn judge(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
        offered: &[SignedRealisation],
    ) -> Verdict {
        self.judge_of(Some(package), pkghash, offered, self.anyone)
    }

    /// Whether nothing that may still come can be expected to change the verdict, so that a search may end before everybody
    /// was asked. Each place that counts is waited for, because it may contradict the others; where several keys have one,
    /// the first is enough. `local` keys need not be waited for: what they signed is here. Without the name of the package every key
    /// that counts for some package is waited for.
    pub fn is_settled(
        &self,
        package: Option<&PackageName>,
        pkghash: &PkgHash,
        offered: &[SignedRealisation],
        local: &BTreeSet<PublicKey>,
    ) -> bool {
        let has_spoken = |key: &PublicKey| offered.iter().any(|signed| signed.signer() == key);
        let mut awaited: BTreeMap<usize, bool> = BTreeMap::new();
        for (key, voice) in &self.seating.voices {
            let counts = voice.discount(package, self.now_unix_secs).is_none();
            if counts && !local.contains(key) && self.rule.names(voice.place) {
                *awaited.entry(voice.place).or_default() |= has_spoken(key);
            }
        }
        let all_have_spoken = awaited.values().all(|spoken| *spoken);
        // Whether anyone may be believed shows when all were asked.
        match self.judge_of(package, pkghash, offered, false) {
            Verdict::Trusted(_) => all_have_spoken,
            // A key that counts for other packages only may be one of those who contradict each other.
            Verdict::Conflict(_) => package.is_some() || all_have_spoken,
            Verdict::Untrusted(_) | Verdict::TooFew { .. } | Verdict::Missing => false,
        }
    }

    /// What was said of a package, each thing once: what counts first.
    pub fn testimonies(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
        offered: &[SignedRealisation],
    ) -> Vec<Testimony> {
        let faulty = contradicting_themselves(pkghash, offered);
        let mut testimonies: Vec<Testimony> = Vec::new();
        for signed in of_package(pkghash, offered) {
            let signer = *signed.signer();
            let said = signed.realisation();
            let discount = if faulty.contains(&signer) {
                Some(Discount::Fault)
            } else {
                self.discount(Some(package), &signer)
            };
            let testimony = Testimony {
                signer,
                name: self.name(&signer).map(str::to_owned),
                sha256: said.sha256,
                size: said.size,
                discount,
            };
            if !testimonies.contains(&testimony) {
                testimonies.push(testimony);
            }
        }
        testimonies.sort_by_key(|said| (said.discount.is_some(), said.signer, said.sha256));
        testimonies
    }

    /// What the user calls who speaks with this key.
    pub fn name(&self, key: &PublicKey) -> Option<&str> {
        let Seating {
            places,
            voices,
            silenced,
        } = &self.seating;
        let place = match (voices.get(key), silenced.get(key)) {
            (Some(voice), _) => voice.place,
            (None, Some((Some(place), _))) => *place,
            (None, _) => return None,
        };
        places[place].name.as_deref()
    }

    /// The keys that speak for somebody, how they came to, and what the user calls that one.
    pub fn voices(&self) -> impl Iterator<Item = (&PublicKey, Standing, Option<&str>)> {
        let Seating { places, voices, .. } = &self.seating;
        let name = |place: usize| places[place].name.as_deref();
        voices
            .iter()
            .map(move |(key, voice)| (key, voice.standing, name(voice.place)))
    }

    /// Whether the key has a place, so that what it says of itself is worth keeping.
    pub fn knows(&self, key: &PublicKey) -> bool {
        self.seating.voices.contains_key(key)
    }

    /// Why what a key signs of a package does not count, faults aside; of any package, if none is named.
    pub fn discount(&self, package: Option<&PackageName>, key: &PublicKey) -> Option<Discount> {
        let Some(voice) = self.seating.voices.get(key) else {
            let silenced = self.seating.silenced.get(key);
            return Some(silenced.map_or(Discount::Stranger, |(_, why)| why.clone()));
        };
        if !self.rule.names(voice.place) {
            return Some(Discount::NotInRule);
        }
        voice.discount(package, self.now_unix_secs)
    }

    /// Whether what the key says of outputs in general counts: it has a place, the rule names it, and its time is not over. That is
    /// enough for the head of a package cache, which makes nothing be used: it only says what the cache should have.
    pub fn counts(&self, key: &PublicKey) -> bool {
        self.discount(None, key).is_none()
    }

    /// Whether those who signed the head of a tree satisfy the rule, and of each why it does not count. Limits to packages mean nothing
    /// here, ends do. A key that another one named counts for outputs only: who lets a machine sign builds has not let it
    /// choose the recipes.
    pub fn judge_signers<'a>(
        &self,
        signers: impl IntoIterator<Item = &'a PublicKey>,
    ) -> (bool, Vec<(PublicKey, Option<Discount>)>) {
        let mut places = BTreeSet::new();
        let mut said = Vec::new();
        for key in signers {
            let mut discount = self.discount(None, key);
            match self.seating.voices.get(key) {
                Some(voice) if voice.standing == Standing::Delegated => {
                    discount.get_or_insert(Discount::OutputsOnly);
                }
                Some(voice) if discount.is_none() => {
                    places.insert(voice.place);
                }
                _ => {}
            }
            said.push((*key, discount));
        }
        (self.rule.is_met(&places), said)
    }

    fn judge_of(
        &self,
        package: Option<&PackageName>,
        pkghash: &PkgHash,
        offered: &[SignedRealisation],
        anyone: bool,
    ) -> Verdict {
        let faulty = contradicting_themselves(pkghash, offered);
        let offered: Vec<_> = of_package(pkghash, offered).collect();
        let mut support: Support<'_> = BTreeMap::new();
        for signed in &offered {
            let key = signed.signer();
            if faulty.contains(key) || self.discount(package, key).is_some() {
                continue;
            }
            let place = self.seating.voices[key].place;
            let said = signed.realisation();
            let (places, _) = support
                .entry(output_of(said))
                .or_insert_with(|| (BTreeSet::new(), said));
            places.insert(place);
        }
        match self.weigh(&support) {
            Some(verdict @ (Verdict::Trusted(_) | Verdict::Conflict(_))) => verdict,
            _ if anyone && offered.iter().any(|signed| self.is_open(signed)) => {
                let open: Vec<_> = offered
                    .iter()
                    .copied()
                    .filter(|s| self.is_open(s))
                    .collect();
                uncontradicted(&open)
            }
            Some(verdict) => verdict,
            None if offered.is_empty() => Verdict::Missing,
            None => Verdict::Untrusted(self.strangers(&offered, &faulty)),
        }
    }

    /// What follows from those who count; `None` when there is nobody.
    fn weigh(&self, support: &Support<'_>) -> Option<Verdict> {
        let enough: Vec<_> = support
            .values()
            .filter(|(places, _)| self.rule.is_met(places))
            .map(|(_, realisation)| (*realisation).clone())
            .collect();
        match &enough[..] {
            [only] => Some(Verdict::Trusted(only.clone())),
            [] => {
                let have = support.values().map(|(places, _)| self.rule.have(places).0);
                let need = self.threshold();
                Some(Verdict::TooFew {
                    have: have.max()?,
                    need,
                })
            }
            _ => Some(Verdict::Conflict(enough)),
        }
    }

    /// Whether its signer is not known to be unreliable.
    fn is_open(&self, signed: &SignedRealisation) -> bool {
        !self.seating.silenced.contains_key(signed.signer())
    }

    /// Those whom it would help to trust.
    fn strangers(
        &self,
        offered: &[&SignedRealisation],
        faulty: &BTreeSet<PublicKey>,
    ) -> Vec<PublicKey> {
        let signers: BTreeSet<_> = offered.iter().map(|signed| *signed.signer()).collect();
        let is_stranger = |key: &PublicKey| self.discount(None, key) == Some(Discount::Stranger);
        let helps = |key: &PublicKey| is_stranger(key) && !faulty.contains(key);
        signers.into_iter().filter(helps).collect()
    }
}

/// The output that all agree on, whoever they are, or the conflict.
fn uncontradicted(offered: &[&SignedRealisation]) -> Verdict {
    let outputs: BTreeMap<_, _> = offered
        .iter()
        .map(|signed| {
            (
                output_of(signed.realisation()),
                signed.realisation().clone(),
            )
        })
        .collect();
    let mut outputs: Vec<_> = outputs.into_values().collect();
    match outputs.len() {
        1 => Verdict::Trusted(outputs.remove(0)),
        _ => Verdict::Conflict(outputs),
    }
}

fn of_package<'a>(
    pkghash: &PkgHash,
    offered: &'a [SignedRealisation],
) -> impl Iterator<Item = &'a SignedRealisation> {
    let pkghash = *pkghash;
    offered
        .iter()
        .filter(move |signed| signed.realisation().pkghash == pkghash)
}

/// Who signed two different outputs of the package: a proof of fault, or that the package is not reproducible.
fn contradicting_themselves(
    pkghash: &PkgHash,
    offered: &[SignedRealisation],
) -> BTreeSet<PublicKey> {
    let mut said: BTreeMap<PublicKey, OutputKey> = BTreeMap::new();
    let mut faulty = BTreeSet::new();
    for signed in of_package(pkghash, offered) {
        let output = output_of(signed.realisation());
        if *said.entry(*signed.signer()).or_insert(output) != output {
            faulty.insert(*signed.signer());
        }
    }
    faulty
}

/// The two statements by which each of these signers contradicts itself about a package: the proof, to be kept and shown.
pub fn faults(pkghash: &PkgHash, offered: &[SignedRealisation]) -> Vec<[SignedRealisation; 2]> {
    let mut first: BTreeMap<PublicKey, &SignedRealisation> = BTreeMap::new();
    let mut found: BTreeMap<PublicKey, [SignedRealisation; 2]> = BTreeMap::new();
    for signed in of_package(pkghash, offered) {
        let one = *first.entry(*signed.signer()).or_insert(signed);
        if output_of(one.realisation()) != output_of(signed.realisation()) {
            found
                .entry(*signed.signer())
                .or_insert_with(|| [one.clone(), signed.clone()]);
        }
    }
    found.into_values().collect()
}
