//! `p2pkgs tree sign`

use std::path::PathBuf;

use super::publish::{check_next, check_root, read, write_head};
use crate::context::Context;
use crate::error::CmdResult;
use crate::heads::{self, Memory};
use crate::keys::{self, DEFAULT_KEY};
use crate::units;
use trust::HeadKind;

#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The head, to which the signature is added
    #[arg(value_name = "FILE")]
    head: PathBuf,
    /// The builder key to sign with
    #[arg(long, value_name = "NAME", default_value = DEFAULT_KEY)]
    key: String,
}

pub(super) fn run(context: &Context, args: &SignArgs) -> CmdResult {
    let mut signed = read(&args.head)?;
    let head = signed.head().clone();
    let home = context.home()?;
    let memory = Memory::of(home, HeadKind::Tree, &head.name);
    let _lock = memory.lock(home)?;
    let packed = heads::pack(&context.tree()?, &mut |_| ())?;
    check_root(&head, &packed.root)?;
    check_next(&head, &memory)?;
    let key = keys::signing_key(home, &context.ui, &args.key)?;
    signed.sign(&key)?;
    memory.remember_signed(&signed)?;
    write_head(&args.head, &signed)?;
    context.ui.status(format!(
        "revision {} of `{}` has {}",
        head.revision,
        head.name,
        units::count(signed.signers().count(), "signature")
    ));
    context.ui.data(args.head.display())
}
