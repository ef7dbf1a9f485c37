//! Is a package's output here, and if not, whom may it be had from? Here the trust policy is applied, and nowhere else.

use base::{PackageName, PkgHash, Realisation, SignedRealisation};
use store::substitute::{Asked, Progress, Query, QueryError, Substituter};
use store::{Blob, Store};
use trust::{LivePolicy, TrustPolicy, Verdict};

use crate::error::Error;
use crate::observe::{Event, Observer};

/// What a lookup found.
#[derive(Debug)]
pub(crate) enum Found {
    /// The output is in the store, and those who vouch for it are the caller or trusted.
    Here(Blob),
    /// The same, but the store did not know until now that the blob is this package's output.
    Adopted(Blob),
    /// A trusted output that others have.
    Elsewhere(Box<Offer>),
    /// None that may be used; the error says why, should nothing else help.
    Nowhere(Asked, Error),
    /// Going on would be a guess.
    Refused(Error),
}

/// An output that is trusted but not here.
#[derive(Debug)]
pub(crate) struct Offer {
    /// What is to be fetched.
    pub realisation: Realisation,
    /// The statements for it, to be kept and passed on once the output is here.
    pub statements: Vec<SignedRealisation>,
    /// Who was asked to find it.
    pub asked: Asked,
}

/// Looks packages up.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub store: &'a Store,
    pub trust: &'a LivePolicy,
    /// The caller's own key: what it signed was built here and needs nobody's agreement.
    pub own: Option<base::PublicKey>,
    /// Who is asked for what is not here; `None` asks nobody.
    pub substituter: Option<&'a dyn Substituter>,
    /// Who may stop a search.
    pub progress: &'a dyn Progress,
    /// Who is told of keys that contradict themselves; they are none of the caller's business who only looks what is here.
    pub observer: Option<&'a dyn Observer>,
}

impl Lookup<'_> {
    /// Looks in the store, then elsewhere.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Cancelled`]; every answer of the outside world is a [`Found`].
    pub(crate) fn find(&self, package: &PackageName, pkghash: &PkgHash) -> Result<Found, Error> {
        let local = self.store.realisations(pkghash)?;
        if let Some(blob) = self.among(package, pkghash, &local)? {
            return Ok(Found::Here(blob));
        }
        let Some(substituter) = self.substituter else {
            let missing = Error::Missing {
                package: package.clone(),
                asked: Asked::default(),
            };
            return Ok(Found::Nowhere(Asked::default(), missing));
        };
        let Query {
            realisations,
            asked,
        } = match substituter.query(pkghash, self.progress) {
            Ok(query) => query,
            Err(QueryError::Cancelled) => return Err(Error::Cancelled),
            Err(source) => {
                let asked = asked_by(&source);
                let error = Error::Lookup {
                    package: package.clone(),
                    source,
                };
                return Ok(Found::Nowhere(asked, error));
            }
        };
        let mut offered = local;
        offered.extend(
            realisations
                .into_iter()
                .filter(|r| r.realisation().pkghash == *pkghash),
        );
        self.keep_faults(package, pkghash, &offered)?;
        self.judge(package, pkghash, offered, asked)
    }

    /// Keeps the proof that a key which has a place signed two outputs of one package, and tells of it. Two statements are the
    /// whole proof: further ones of the same key are not kept.
    fn keep_faults(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
        offered: &[SignedRealisation],
    ) -> Result<(), Error> {
        let trust = self.trust.now();
        for proof in trust::faults(pkghash, offered) {
            let signer = *proof[0].signer();
            if !trust.knows(&signer) {
                continue;
            }
            for statement in &proof {
                self.store.put_realisation(statement)?;
            }
            if let Some(observer) = self.observer {
                let name = trust
                    .name(&signer)
                    .map_or(String::new(), |name| format!("{name} "));
                let [one, other] = [&proof[0], &proof[1]].map(|s| s.realisation().sha256);
                let text = format!(
                    "{name}{signer} signed two outputs, {one} and {other}, so it does not count here"
                );
                observer.event(&Event::Warning {
                    package,
                    text: &text,
                });
            }
        }
        Ok(())
    }

    /// The outputs that the store has and the caller may use, of many packages at once and in their order.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn here(
        &self,
        packages: &[(&PackageName, PkgHash)],
    ) -> Result<Vec<Option<Blob>>, Error> {
        let hashes: Vec<_> = packages.iter().map(|(_, pkghash)| *pkghash).collect();
        let local = self.store.realisations_of(&hashes)?;
        let trust = self.trust.now();
        let asked = packages.iter().zip(&local);
        let choices: Vec<_> = asked
            .map(|((package, pkghash), local)| self.first_choice(&trust, package, pkghash, local))
            .collect();
        let digests: Vec<_> = choices.iter().flatten().map(|r| r.sha256).collect();
        let mut blobs = self.store.blobs_of(&digests)?.into_iter();
        let mut here = Vec::with_capacity(packages.len());
        for (((package, pkghash), local), choice) in packages.iter().zip(&local).zip(&choices) {
            let blob = match choice {
                Some(realisation) => blobs.next().flatten().filter(|b| is_it(b, realisation)),
                None => None,
            };
            here.push(match blob {
                None if local.len() > 1 => self.among(package, pkghash, local)?,
                blob => blob,
            });
        }
        Ok(here)
    }

    /// The output to look for first: nearly always the only one.
    fn first_choice(
        &self,
        trust: &TrustPolicy,
        package: &PackageName,
        pkghash: &PkgHash,
        local: &[SignedRealisation],
    ) -> Option<Realisation> {
        let own = local.iter().find(|s| self.own.as_ref() == Some(s.signer()));
        match own {
            Some(own) => Some(own.realisation().clone()),
            None => match trust.judge(package, pkghash, local) {
                Verdict::Trusted(realisation) => Some(realisation),
                _ => None,
            },
        }
    }

    fn among(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
        local: &[SignedRealisation],
    ) -> Result<Option<Blob>, Error> {
        for signed in local
            .iter()
            .filter(|s| self.own.as_ref() == Some(s.signer()))
        {
            if let Some(blob) = self.blob(signed.realisation())? {
                return Ok(Some(blob));
            }
        }
        match self.trust.now().judge(package, pkghash, local) {
            Verdict::Trusted(realisation) => self.blob(&realisation),
            _ => Ok(None),
        }
    }

    fn blob(&self, realisation: &Realisation) -> Result<Option<Blob>, Error> {
        let blob = self.store.blob(&realisation.sha256)?;
        Ok(blob.filter(|blob| is_it(blob, realisation)))
    }

    fn judge(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
        offered: Vec<SignedRealisation>,
        asked: Asked,
    ) -> Result<Found, Error> {
        // What came with the statements may have said something of their signers.
        let trust = self.trust.now();
        Ok(match trust.judge(package, pkghash, &offered) {
            Verdict::Trusted(realisation) => {
                let statements = vouching(&realisation, offered);
                match self.blob(&realisation)? {
                    // The same bytes are here under another name, or without anybody's word.
                    Some(blob) => {
                        for statement in &statements {
                            self.store.put_realisation(statement)?;
                        }
                        Found::Adopted(blob)
                    }
                    None => Found::Elsewhere(Box::new(Offer {
                        realisation,
                        statements,
                        asked,
                    })),
                }
            }
            verdict => {
                let is_conflict = matches!(verdict, Verdict::Conflict(_));
                let error = refusal(verdict, &trust, package, pkghash, &offered, asked);
                if is_conflict {
                    Found::Refused(error)
                } else {
                    Found::Nowhere(asked, error)
                }
            }
        })
    }
}

/// Whether this is the output that a realisation names.
fn is_it(blob: &Blob, realisation: &Realisation) -> bool {
    blob.size == realisation.size && blob.root == realisation.output
}

/// Why an output may not be used, with who said what. That another one is trusted contradicts it, too.
pub fn refusal(
    verdict: Verdict,
    trust: &TrustPolicy,
    package: &PackageName,
    pkghash: &PkgHash,
    offered: &[SignedRealisation],
    asked: Asked,
) -> Error {
    let package = package.clone();
    let testimonies = trust.testimonies(&package, pkghash, offered);
    match verdict {
        Verdict::Untrusted(signers) => Error::Untrusted {
            package,
            signers,
            testimonies,
        },
        Verdict::TooFew { have, need } => Error::TooFewSigners {
            package,
            have,
            need,
            rule: trust.rule().map(str::to_owned),
            testimonies,
        },
        Verdict::Conflict(_) | Verdict::Trusted(_) => Error::Conflict {
            package,
            testimonies,
        },
        Verdict::Missing => Error::Missing { package, asked },
    }
}

/// The statements that name exactly this output.
fn vouching(realisation: &Realisation, offered: Vec<SignedRealisation>) -> Vec<SignedRealisation> {
    let mut statements: Vec<SignedRealisation> = Vec::new();
    for signed in offered {
        if signed.realisation().agrees_with(realisation) && !statements.contains(&signed) {
            statements.push(signed);
        }
    }
    statements
}

fn asked_by(error: &QueryError) -> Asked {
    match error {
        QueryError::TimedOut { asked } => *asked,
        _ => Asked::default(),
    }
}
