//! Takes in what a host has built. What it says is believed as far as its key is, or as far as the user signs it.

use base::{Realisation, Sha256, SignedRealisation};
use builder::{Context as BuildContext, Options, refusal};
use recipe::PackageId;
use store::substitute::Asked;
use store::{Blob, Expected, StoreError};

use super::link::{NotReceived, receive};
use super::talk::{Lost, Talk, Trouble};
use super::wire::{Ask, Output, Tell};
use trust::Verdict;

use crate::as_text::Text;
use crate::error::Failure;
use crate::session::Session;

/// Most statements about one output that are looked at.
const STATEMENTS_MAX: usize = 64;

/// Takes outputs in.
pub struct Taking<'a> {
    /// The packages, and the tools.
    pub session: &'a Session,
    /// The tools as the builder takes them.
    pub context: &'a BuildContext<'a>,
    /// How packages are got.
    pub options: &'a Options,
    /// Whether the user's own key signs whatever comes.
    pub sign_here: bool,
}

/// How much came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Taking<'_> {
    /// Takes in all outputs that are not here.
    ///
    /// # Errors
    /// When the host is gone or makes no sense, when nobody trusted vouches for one, and when our own store fails.
    pub fn take(&self, talk: &Talk<'_>, outputs: &[Output]) -> Result<Taken, Trouble> {
        let mut taken = Taken::default();
        for output in outputs {
            let id = self.session.graph.id(&output.package.0);
            let id = id.ok_or(Lost::Odd("it sends packages that were not asked for"))?;
            let came = match self.session.graph.recipe(id).seed() {
                Some(seed) => self.take_seed(talk, seed.sha256, output)?,
                None => self.take_package(talk, id, output)?,
            };
            if let Some(bytes) = came {
                taken.files += 1;
                taken.bytes += bytes;
            }
        }
        Ok(taken)
    }

    fn take_seed(
        &self,
        talk: &Talk<'_>,
        sha256: Sha256,
        output: &Output,
    ) -> Result<Option<u64>, Trouble> {
        if output.sha256.0 != sha256 {
            return Err(Lost::Odd("it sends a seed that is not the recipe's").into());
        }
        if self.context.store.blob(&sha256).map_err(ours)?.is_some() {
            return Ok(None);
        }
        let blob = self.get(talk, sha256, &Expected::sha256(sha256))?;
        Ok(Some(blob.size))
    }

    fn take_package(
        &self,
        talk: &Talk<'_>,
        id: PackageId,
        output: &Output,
    ) -> Result<Option<u64>, Trouble> {
        let graph = &self.session.graph;
        let pkghash = graph.pkghash(id);
        let here = self.context.find_here(graph.name(id), &pkghash);
        if here.map_err(|e| Trouble::Final(e.into()))?.is_some() {
            return Ok(None);
        }
        let statements = statements(output)?;
        let realisation = statements.first().map(SignedRealisation::realisation);
        let realisation = realisation.ok_or(Lost::Odd("it vouches for nothing that it sends"))?;
        if realisation.pkghash != pkghash {
            return Err(Lost::Odd("it vouches for another package than it sends").into());
        }
        if !self.sign_here {
            self.judge(id, realisation, &statements)?;
        }
        let is_it = |b: &Blob| b.size == realisation.size && b.root == realisation.output;
        let here = self.context.store.blob(&realisation.sha256).map_err(ours)?;
        let (blob, came) = match here.filter(is_it) {
            Some(blob) => (blob, None),
            None => {
                let expected = Expected::realisation(realisation);
                let blob = self.get(talk, realisation.sha256, &expected)?;
                let size = blob.size;
                (blob, Some(size))
            }
        };
        let derivation = graph.derivation(id);
        let record = || {
            let context = self.context;
            context.record_fetched(&derivation, &blob, &statements, self.options)?;
            if self.sign_here {
                context.record_built(&derivation, &blob, None, self.options)?;
            }
            Ok(())
        };
        record().map_err(|e: builder::Error| Trouble::Final(e.into()))?;
        Ok(came)
    }

    /// Whether the user believes what is said of an output.
    fn judge(
        &self,
        id: PackageId,
        realisation: &Realisation,
        statements: &[SignedRealisation],
    ) -> Result<(), Trouble> {
        let (package, pkghash) = (self.session.graph.name(id), realisation.pkghash);
        let mut said = self.context.store.realisations(&pkghash).map_err(ours)?;
        said.extend(statements.iter().cloned());
        let trust = self.context.trust.now();
        let error = match trust.judge(package, &pkghash, &said) {
            Verdict::Trusted(trusted) if trusted.agrees_with(realisation) => return Ok(()),
            verdict => refusal(verdict, &trust, package, &pkghash, &said, Asked::default()),
        };
        let failure = Failure::from(error);
        Err(Trouble::Final(failure.hint(
            "or sign what that machine built with your own key: `--sign-here`",
        )))
    }

    fn get(&self, talk: &Talk<'_>, sha256: Sha256, expected: &Expected) -> Result<Blob, Trouble> {
        talk.say(&Ask::Get {
            sha256: Text(sha256),
        })?;
        let next = || match talk.next()? {
            Tell::File(part) => Ok(part),
            _ => Err(Lost::Odd("it says something else in the middle of a file")),
        };
        let task = self.session.bench.ui.tasks().start("receiving outputs");
        let arrived = |n, total| task.add_bytes(n, Some(total));
        match receive(self.context.store, expected, next, arrived) {
            Ok(Some(blob)) => Ok(blob),
            Ok(None) => Err(Lost::Odd("it does not have what it says it built").into()),
            Err(NotReceived::Over(lost)) => Err(lost.into()),
            Err(NotReceived::Odd) => {
                Err(Lost::Odd("it sends another file than it promised").into())
            }
            Err(NotReceived::Store(StoreError::Mismatch { .. })) => {
                Err(Lost::Odd("it sends another file than it vouches for").into())
            }
            Err(NotReceived::Store(error)) => Err(ours(error)),
        }
    }
}

/// The statements about an output, which all have to say the same.
fn statements(output: &Output) -> Result<Vec<SignedRealisation>, Lost> {
    let odd = Lost::Odd("it sends what is no statement about an output");
    let all: Result<Vec<_>, _> = output
        .statements
        .iter()
        .take(STATEMENTS_MAX)
        .map(|bytes| SignedRealisation::from_bytes(bytes))
        .collect();
    let Ok(all) = all else { return Err(odd) };
    let first = all.first().map(SignedRealisation::realisation);
    let same = |signed: &SignedRealisation| {
        Some(signed.realisation()) == first && signed.realisation().sha256 == output.sha256.0
    };
    if all.iter().all(same) {
        Ok(all)
    } else {
        Err(odd)
    }
}

/// A store that fails is ours, not the host's.
fn ours(error: StoreError) -> Trouble {
    Trouble::Final(error.into())
}

#[cfg(test)]
mod tests {
    use base::{PkgHash, SecretKey};
    use serde_bytes::ByteBuf;

    use super::*;

    fn signed(by: u8, package: &str, content: &[u8]) -> ByteBuf {
        let sha256 = Sha256::of(content);
        let realisation = Realisation {
            pkghash: PkgHash::of_derivation(package.as_bytes()),
            output: base::block_cid(base::Codec::Raw, &sha256),
            sha256,
            size: content.len() as u64,
        };
        let signed = realisation.sign(&SecretKey::from_seed(&[by; 32]));
        ByteBuf::from(signed.to_bytes())
    }

    fn statements_of(content: &[u8], said: Vec<ByteBuf>) -> Option<usize> {
        let output = Output {
            package: Text("make".parse().unwrap()),
            sha256: Text(Sha256::of(content)),
            statements: said,
        };
        statements(&output).ok().map(|all| all.len())
    }

    #[test]
    fn statements_all_say_the_same_of_the_output_they_come_with() {
        let one = || signed(1, "make", b"output");
        let two = signed(2, "make", b"output");
        assert_eq!(statements_of(b"output", vec![one(), two]), Some(2));
        assert_eq!(statements_of(b"output", Vec::new()), Some(0));
        for other in [
            signed(2, "make", b"another"),
            signed(2, "another", b"output"),
            ByteBuf::from(b"noise".to_vec()),
            ByteBuf::from(one().iter().rev().copied().collect::<Vec<_>>()),
        ] {
            assert_eq!(statements_of(b"output", vec![one(), other]), None);
        }
        assert_eq!(statements_of(b"another", vec![one()]), None);
        let many = vec![one(); STATEMENTS_MAX + 1];
        assert_eq!(statements_of(b"output", many), Some(STATEMENTS_MAX));
    }
}
