//! Is a package's output here, and if not, whom may it be had from? Here the trust policy is applied, and nowhere else.

use base::{PackageName, PkgHash, Realisation, SignedRealisation, TrustPolicy, Verdict};
use store::substitute::{Asked, Progress, Query, QueryError, Substituter};
use store::{Blob, Store};

use crate::error::Error;

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
    pub trust: &'a TrustPolicy,
    /// The caller's own key: what it signed was built here and needs nobody's agreement.
    pub own: Option<base::PublicKey>,
    /// Who is asked for what is not here; `None` asks nobody.
    pub substituter: Option<&'a dyn Substituter>,
    /// Who may stop a search.
    pub progress: &'a dyn Progress,
}

impl Lookup<'_> {
    /// Looks in the store, then elsewhere.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Cancelled`]; every answer of the outside world is a [`Found`].
    pub(crate) fn find(&self, package: &PackageName, pkghash: &PkgHash) -> Result<Found, Error> {
        let local = self.store.realisations(pkghash)?;
        if let Some(blob) = self.among(pkghash, &local)? {
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
        self.judge(package, pkghash, offered, asked)
    }

    /// The output that the store has and the caller may use.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn here(&self, pkghash: &PkgHash) -> Result<Option<Blob>, Error> {
        self.among(pkghash, &self.store.realisations(pkghash)?)
    }

    fn among(&self, pkghash: &PkgHash, local: &[SignedRealisation]) -> Result<Option<Blob>, Error> {
        for signed in local
            .iter()
            .filter(|s| self.own.as_ref() == Some(s.signer()))
        {
            if let Some(blob) = self.blob(signed.realisation())? {
                return Ok(Some(blob));
            }
        }
        match self.trust.judge(pkghash, local) {
            Verdict::Trusted(realisation) => self.blob(&realisation),
            _ => Ok(None),
        }
    }

    fn blob(&self, realisation: &Realisation) -> Result<Option<Blob>, Error> {
        let blob = self.store.blob(&realisation.sha256)?;
        let is_it = |b: &Blob| b.size == realisation.size && b.root == realisation.output;
        Ok(blob.filter(is_it))
    }

    fn judge(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
        offered: Vec<SignedRealisation>,
        asked: Asked,
    ) -> Result<Found, Error> {
        let package = package.clone();
        Ok(match self.trust.judge(pkghash, &offered) {
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
            Verdict::Untrusted(signers) => {
                Found::Nowhere(asked, Error::Untrusted { package, signers })
            }
            Verdict::TooFew { have, need } => Found::Nowhere(
                asked,
                Error::TooFewSigners {
                    package,
                    have,
                    need,
                },
            ),
            Verdict::Conflict(_) => {
                let statements = self.of_trusted(offered);
                Found::Refused(Error::Conflict {
                    package,
                    statements,
                })
            }
            Verdict::Missing => Found::Nowhere(asked, Error::Missing { package, asked }),
        })
    }

    /// What trusted keys say, each statement once.
    fn of_trusted(&self, offered: Vec<SignedRealisation>) -> Vec<SignedRealisation> {
        let mut statements: Vec<SignedRealisation> = Vec::new();
        for signed in offered {
            let is_trusted = self.trust.keys().any(|key| key == signed.signer());
            if is_trusted && !statements.contains(&signed) {
                statements.push(signed);
            }
        }
        statements
    }
}

/// The statements that say exactly this.
fn vouching(realisation: &Realisation, offered: Vec<SignedRealisation>) -> Vec<SignedRealisation> {
    let mut statements: Vec<SignedRealisation> = Vec::new();
    for signed in offered {
        if signed.realisation() == realisation && !statements.contains(&signed) {
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
