//! Where a package's output is: in the store, with others, or nowhere.

use std::iter;

use base::PackageName;
use recipe::{Outcome, PackageId, Plan, Policy};
use store::Blob;
use store::substitute::{Asked, NoProgress};
use trust::Discount;

use super::{Answer, Done, Ledger, Runner};
use crate::error::{Error, chain};
use crate::lookup::{Found, Lookup};
use crate::observe::{Event, FetchProgress};

impl Runner<'_> {
    /// Looks in the store alone for all packages that are to be looked up, for which no thread is needed: of ten thousand
    /// most are here.
    pub(super) fn find_all_here(&self, plan: &Plan, ledger: &mut Ledger) {
        let lookups = plan.lookups();
        // Packages come at the end, so when the last one was asked about all were.
        if lookups.back().is_none_or(|id| ledger.here.contains_key(id)) {
            return;
        }
        let is_new = |id: &PackageId| !ledger.here.contains_key(id);
        let ids: Vec<PackageId> = lookups.iter().copied().filter(is_new).collect();
        // One has to look further where it cannot be found out, and be told there what went wrong.
        let here = self.here(&ids).unwrap_or_default();
        let answers = here.into_iter().chain(iter::repeat(None));
        ledger.here.extend(ids.into_iter().zip(answers));
    }

    fn here(&self, ids: &[PackageId]) -> Result<Vec<Option<Blob>>, Error> {
        let seed = |id: &PackageId| self.graph.recipe(*id).seed();
        let seeds: Vec<_> = ids.iter().filter_map(seed).map(|s| s.sha256).collect();
        let built = ids.iter().filter(|id| seed(id).is_none());
        let built: Vec<_> = built
            .map(|id| (self.graph.name(*id), self.graph.pkghash(*id)))
            .collect();
        let mut seeds = self.context.store.blobs_of(&seeds)?.into_iter();
        let mut built = self.looking().here(&built)?.into_iter();
        let next = |id| match seed(id) {
            Some(_) => seeds.next().flatten(),
            None => built.next().flatten(),
        };
        Ok(ids.iter().map(next).collect())
    }

    /// What was found in the store. `None` where one has to look further, or be told what went wrong.
    pub(super) fn find_here(&self, id: PackageId, ledger: &mut Ledger) -> Option<Outcome> {
        let package = self.graph.name(id);
        let done = Done {
            blob: Some(ledger.here.get_mut(&id)?.take()?),
            ..Done::default()
        };
        self.context.observer.event(&Event::Present { package });
        let outcome = Outcome::Present;
        Some(self.settle(Answer { id, outcome, done }, ledger))
    }

    pub(super) fn lookup(&self, id: PackageId, done: &mut Done) -> Result<Outcome, Error> {
        let package = self.graph.name(id);
        self.context.observer.event(&Event::Looking { package });
        match self.look(id)? {
            Found::Here(blob) => {
                done.blob = Some(blob);
                self.context.observer.event(&Event::Present { package });
                Ok(Outcome::Present)
            }
            Found::Adopted(blob) => {
                self.keep(id, &blob)?;
                done.blob = Some(blob);
                self.context.observer.event(&Event::Present { package });
                Ok(Outcome::Present)
            }
            Found::Elsewhere(offer) => {
                done.asked = offer.asked;
                done.offer = Some(offer);
                Ok(Outcome::Found)
            }
            Found::Nowhere(asked, error) => {
                done.asked = asked;
                if !matches!(error, Error::Missing { .. }) && self.may_build() {
                    self.warn(package, &format!("{}, so it is built", chain(&error)));
                    self.tell_discounts(package, &error);
                }
                done.error = Some(error);
                Ok(Outcome::Missing)
            }
            Found::Refused(error) => Err(error),
        }
    }

    /// Whether a package need not be looked for elsewhere.
    pub(crate) fn is_here(&self, id: PackageId) -> Result<bool, Error> {
        let is_seed = self.graph.recipe(id).seed().is_some();
        Ok(is_seed || self.here(&[id])?.iter().any(Option::is_some))
    }

    pub(crate) fn look(&self, id: PackageId) -> Result<Found, Error> {
        let package = self.graph.name(id);
        let store = self.context.store;
        if let Some(seed) = self.graph.recipe(id).seed() {
            let missing = || {
                let asked = Asked::default();
                Found::Nowhere(
                    asked,
                    Error::Missing {
                        package: package.clone(),
                        asked,
                    },
                )
            };
            return Ok(store.blob(&seed.sha256)?.map_or_else(missing, Found::Here));
        }
        let substitutes = self.options.policy != Policy::BuildOnly;
        let lookup = Lookup {
            substituter: substitutes.then_some(self.context.substituter),
            progress: &FetchProgress::new(self.context.observer, package, None),
            observer: Some(self.context.observer),
            ..self.looking()
        };
        lookup.find(package, &self.graph.pkghash(id))
    }

    /// Looks in the store and asks nobody.
    fn looking(&self) -> Lookup<'_> {
        Lookup {
            store: self.context.store,
            trust: self.context.trust,
            own: self.context.signer.public(),
            substituter: None,
            progress: &NoProgress,
            observer: None,
        }
    }

    /// Whoever expected a key to count is told why it did not. A key that contradicts itself was told of already.
    pub(super) fn tell_discounts(&self, package: &PackageName, error: &Error) {
        for said in error.testimonies() {
            if !matches!(
                said.discount,
                None | Some(Discount::Stranger | Discount::Fault)
            ) {
                self.warn(package, &said.to_string());
            }
        }
    }
}
