//! `p2pkgs key faults`: keys that contradict themselves, with the two statements that prove it.

use base::{PackageName, PkgHash, SignedRealisation};
use recipe::Derivation;
use serde::Serialize;
use store::Store;

use crate::context::Context;
use crate::error::CmdResult;

#[derive(Serialize)]
struct Fault {
    pkghash: String,
    key: String,
    outputs: [String; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

pub fn faults(context: &Context) -> CmdResult {
    let policy = context.trust()?;
    let store = context.store()?;
    let mut found = Vec::new();
    for pkghash in store.packages_said_twice()? {
        let statements = store.realisations(&pkghash)?;
        for [one, other] in trust::faults(&pkghash, &statements) {
            let output = |signed: &SignedRealisation| signed.realisation().sha256.to_string();
            found.push(Fault {
                pkghash: pkghash.to_string(),
                key: one.signer().to_string(),
                outputs: [output(&one), output(&other)],
                package: package(store, &pkghash)?.map(|name| name.to_string()),
                name: policy.name(one.signer()).map(crate::sanitize::line),
            });
        }
    }
    if context.ui.json() {
        return context.ui.json_data(&found);
    }
    found.iter().try_for_each(|fault| {
        let Fault {
            pkghash,
            key,
            outputs: [one, other],
            ..
        } = fault;
        let package = fault.package.as_deref().unwrap_or("-");
        let name = fault.name.as_deref().unwrap_or("-");
        context
            .ui
            .data(format!("{pkghash} {key} {one} {other} {package} {name}"))
    })
}

/// What the package is called, if its derivation is here.
fn package(store: &Store, pkghash: &PkgHash) -> CmdResult<Option<PackageName>> {
    let text = store.derivation(pkghash)?;
    let derivation = text.and_then(|text| Derivation::parse(&text).ok());
    Ok(derivation.map(|derivation| derivation.name().clone()))
}
