//! `p2pkgs config`

use std::collections::BTreeMap;

use serde::Serialize;

use crate::context::Context;
use crate::error::CmdResult;

/// Show the configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every setting as TOML, one a line
    ///
    /// Layers, weakest first: built in, profile, /etc/p2pkgs/config.toml, the user's config.toml, environment, flags.
    Show {
        /// Say who set each value
        #[arg(long)]
        origin: bool,
    },
}

#[derive(Serialize)]
struct Value<'a> {
    value: &'a toml::Value,
    origin: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let Command::Show { origin } = &args.command;
    let config = context.config()?;
    for fault in config.faults() {
        context.ui.warn(fault);
    }
    if context.ui.json() {
        let all: BTreeMap<_, _> = config
            .settings()
            .map(|(key, s)| {
                (
                    key,
                    Value {
                        value: &s.value,
                        origin: s.origin.to_string(),
                    },
                )
            })
            .collect();
        return context.ui.json_data(&all);
    }
    for (key, setting) in config.settings() {
        let line = format!("{key} = {}", setting.value);
        if *origin {
            context.ui.data(format!("{line}  # {}", setting.origin))?;
        } else {
            context.ui.data(line)?;
        }
    }
    Ok(())
}
