//! `p2pkgs key audit`: with what a package was built by those who signed it, compared with what this home would use.

use base::{Cid, Multihash, PackageName, PkgHash, PublicKey};
use builder::{InputList, UsedInput};
use node::fetch_path;
use recipe::Graph;
use serde::Serialize;
use store::{BlockStore as _, Store};
use trust::{TrustPolicy, Verdict};

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::keys;
use crate::network::Remote;
use crate::units;
use crate::watch::Watch;

/// What is known of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Finding {
    /// This home would use the same output.
    Same,
    /// This home would use another output.
    Other,
    /// Nobody trusted has said here what it should be.
    Unknown,
    /// The recipe is not built with this package.
    Foreign,
}

#[derive(Serialize)]
struct Audited {
    signer: String,
    finding: Finding,
    name: String,
    pkghash: String,
    sha256: String,
}

pub fn audit(context: &Context, package: &str) -> CmdResult {
    let mut tree = context.tree()?;
    let names = tree.package_names(&[package.to_owned()])?;
    let graph = context.graph(&mut tree, &names)?;
    let auditor = Auditor {
        store: context.store()?,
        policy: context.trust()?,
        own: (keys::own_keys(context.home()?)?.iter())
            .map(|own| own.key.public())
            .collect(),
        graph: &graph,
    };
    let mut audited = Vec::new();
    let mut lists = 0;
    for id in graph.roots() {
        for signed in auditor.store.realisations(&graph.pkghash(*id))? {
            let Some(cid) = signed.inputs() else { continue };
            lists += 1;
            let list = list(context, cid)?;
            for input in list.iter() {
                audited.push(auditor.audited(signed.signer(), input)?);
            }
        }
    }
    if lists == 0 {
        let message = "nobody whose statements are here has said with what it was built";
        return Err(Failure::new(Exit::NotFound, message));
    }
    print(context, &audited)?;
    let wrong = |one: &&Audited| matches!(one.finding, Finding::Other | Finding::Foreign);
    match audited.iter().filter(wrong).count() {
        0 => Ok(()),
        count => {
            let inputs = units::count(count, "input");
            let message = format!("{inputs} of the build would not be used here");
            Err(Failure::new(Exit::Mismatch, message))
        }
    }
}

fn print(context: &Context, audited: &[Audited]) -> CmdResult {
    if context.ui.json() {
        return context.ui.json_data(&audited);
    }
    audited.iter().try_for_each(|one| {
        let finding = match one.finding {
            Finding::Same => "same",
            Finding::Other => "other",
            Finding::Unknown => "unknown",
            Finding::Foreign => "foreign",
        };
        let Audited {
            signer,
            name,
            pkghash,
            sha256,
            ..
        } = one;
        context
            .ui
            .data(format!("{finding} {name} {pkghash} {sha256} {signer}"))
    })
}

/// The list behind a CID, from the store or from whoever has it.
fn list(context: &Context, cid: &Cid) -> CmdResult<InputList> {
    let store = context.store()?;
    let what = || format!("cannot use the list of inputs `{cid}`");
    let bytes = match store.get(&Multihash::of(cid)?)? {
        Some(block) => block.bytes().to_vec(),
        None => {
            let remote = Remote::new(context)?;
            let watch = Watch::new(&context.ui, &context.interrupt);
            let progress = watch.transfer(format!("fetching {cid}"));
            let path = cid.to_string().parse()?;
            let fetched = fetch_path(remote.doors()?, &path, store, &progress)
                .map_err(|error| Failure::from(error).context(what()))?;
            let mut bytes = Vec::new();
            crate::blobs::open(store, &fetched.blob)?.copy_to(&mut bytes)?;
            bytes
        }
    };
    InputList::parse(&bytes).map_err(|error| {
        Failure::from(error)
            .exit_with(Exit::Mismatch)
            .context(what())
    })
}

struct Auditor<'a> {
    store: &'a Store,
    policy: TrustPolicy,
    own: Vec<PublicKey>,
    graph: &'a Graph,
}

impl Auditor<'_> {
    fn audited(&self, signer: &PublicKey, input: &UsedInput) -> CmdResult<Audited> {
        Ok(Audited {
            signer: signer.to_string(),
            finding: self.finding(input)?,
            name: input.name.to_string(),
            pkghash: input.pkghash.to_string(),
            sha256: input.sha256.to_string(),
        })
    }

    fn finding(&self, input: &UsedInput) -> CmdResult<Finding> {
        let UsedInput {
            name,
            pkghash,
            sha256,
            ..
        } = input;
        let id = self.graph.id(name);
        let Some(id) = id.filter(|id| self.graph.pkghash(*id) == *pkghash) else {
            return Ok(Finding::Foreign);
        };
        let expected = match self.graph.recipe(id).seed() {
            // A seed is what its recipe says.
            Some(seed) => vec![seed.sha256],
            None => self.expected(name, pkghash)?,
        };
        Ok(match expected.contains(sha256) {
            true => Finding::Same,
            false if expected.is_empty() => Finding::Unknown,
            false => Finding::Other,
        })
    }

    /// The outputs that this home would use: of its own making, or trusted.
    fn expected(&self, name: &PackageName, pkghash: &PkgHash) -> CmdResult<Vec<base::Sha256>> {
        let statements = self.store.realisations(pkghash)?;
        let mine = statements
            .iter()
            .filter(|signed| self.own.contains(signed.signer()));
        let mut expected: Vec<_> = mine.map(|signed| signed.realisation().sha256).collect();
        if let Verdict::Trusted(said) = self.policy.judge(name, pkghash, &statements) {
            expected.push(said.sha256);
        }
        Ok(expected)
    }
}
