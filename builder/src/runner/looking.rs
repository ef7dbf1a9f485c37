//! Where a package's output is: in the store, with others, or nowhere.

use base::PackageName;
use recipe::{Outcome, PackageId, Policy};
use store::substitute::{Asked, NoProgress};
use trust::Discount;

use super::{Answer, Done, Ledger, Runner};
use crate::error::{Error, chain};
use crate::lookup::{Found, Lookup};
use crate::observe::{Event, FetchProgress};

impl Runner<'_> {
    /// Looks in the store alone, for which no thread is needed: of ten thousand packages most are here. `None` where one
    /// has to look further, or be told what went wrong.
    pub(super) fn find_here(&self, id: PackageId, ledger: &mut Ledger) -> Option<Outcome> {
        let package = self.graph.name(id);
        let here = match self.graph.recipe(id).seed() {
            Some(seed) => self.context.store.blob(&seed.sha256).ok()?,
            None => self.looking().here(package, &self.graph.pkghash(id)).ok()?,
        };
        let done = Done {
            blob: Some(here?),
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
        let here = match self.graph.recipe(id).seed() {
            Some(_) => return Ok(true),
            None => self
                .looking()
                .here(self.graph.name(id), &self.graph.pkghash(id))?,
        };
        Ok(here.is_some())
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
