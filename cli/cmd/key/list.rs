//! `p2pkgs key list`: own and trusted keys, what they are limited to, and the rule.

use serde::Serialize;
use trust::{Discount, Member, Standing, TrustPolicy};

use crate::context::Context;
use crate::error::CmdResult;
use crate::keys;
use crate::sanitize;
use crate::trust_file::TrustFile;

#[derive(Serialize)]
struct Listed {
    kind: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "for", skip_serializing_if = "Vec::is_empty")]
    patterns: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Why it does not count at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    discount: Option<String>,
}

#[derive(Serialize)]
struct Listing {
    threshold: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    keys: Vec<Listed>,
}

pub fn list(context: &Context) -> CmdResult {
    let home = context.home()?;
    let policy = context.trust()?;
    let own = keys::own_keys(home)?.into_iter().map(|own| {
        let member = Member {
            name: Some(own.name),
            ..Member::new(own.key.public())
        };
        // That a rule passes over one's own keys is no news.
        let discount = policy.discount(None, &member.key);
        listed(
            "own",
            &member,
            discount.filter(|why| *why != Discount::NotInRule),
        )
    });
    let file = TrustFile::read(home)?;
    let configured = context.config()?.trust()?.keys;
    let configured: Vec<_> = configured.into_iter().map(Member::new).collect();
    let trusted = file.keys.iter().chain(&configured);
    let trusted =
        trusted.map(|member| listed("trusted", member, policy.discount(None, &member.key)));
    let listing = Listing {
        threshold: policy.threshold(),
        rule: policy.rule().map(str::to_owned),
        keys: own.chain(trusted).chain(implied(&policy)).collect(),
    };
    if context.ui.json() {
        return context.ui.json_data(&listing);
    }
    tell_rule(context, &policy);
    listing.keys.iter().try_for_each(|key| {
        let line = key.line();
        context.ui.data(sanitize::line(&line))
    })
}

/// Keys that have their voice from another key.
fn implied(policy: &TrustPolicy) -> impl Iterator<Item = Listed> {
    policy.voices().filter_map(|(key, standing, name)| {
        let kind = match standing {
            Standing::Follows => "follows",
            Standing::Delegated => "delegated",
            _ => return None,
        };
        let member = Member {
            name: name.map(str::to_owned),
            ..Member::new(*key)
        };
        Some(listed(kind, &member, policy.discount(None, key)))
    })
}

fn tell_rule(context: &Context, policy: &TrustPolicy) {
    match (policy.rule(), policy.threshold()) {
        (Some(rule), _) => context.ui.status(format!("the rule is: {rule}")),
        (None, 1) => {}
        (None, need) => context
            .ui
            .status(format!("{need} trusted keys must agree on an output")),
    }
}

fn listed(kind: &'static str, member: &Member, discount: Option<Discount>) -> Listed {
    let patterns = member.scope.patterns().iter();
    Listed {
        kind,
        key: member.key.to_string(),
        name: member.name.clone(),
        patterns: patterns.map(ToString::to_string).collect(),
        until: member.until.map(|day| day.to_string()),
        discount: discount.map(|why| why.to_string()),
    }
}

impl Listed {
    fn line(&self) -> String {
        let name = self.name.as_deref().unwrap_or("-");
        let mut line = format!("{} {} {name}", self.kind, self.key);
        for pattern in &self.patterns {
            line.push_str(" for ");
            line.push_str(pattern);
        }
        if let Some(until) = &self.until {
            line.push_str(" until ");
            line.push_str(until);
        }
        if let Some(why) = &self.discount {
            line.push_str(", does not count: ");
            line.push_str(why);
        }
        line
    }
}
