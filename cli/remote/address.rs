//! Where another machine is: `ssh://[USER@]HOST[:PORT][/HOME]`.
//!
//! What is read here becomes words of a command line, on this machine and on the other. So it is not quoted but checked: what
//! could be taken for anything else than a name is refused.

use std::fmt;
use std::str::FromStr;

use builder::SshTarget;

/// Longest address in bytes: the longest host name, a path, and room for a user.
const BYTES_MAX: usize = 2048;
/// Folders where a program may lie that was installed for one user: a shell that is not interactive often does not know them.
const MORE_PATH: &str = "$PATH:$HOME/.cargo/bin:$HOME/.local/bin:/usr/local/bin";

/// Another machine, and the p2pkgs home on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The machine.
    pub target: SshTarget,
    /// The home on it; `None` is what p2pkgs takes there by itself.
    home: Option<String>,
}

/// Why a text is no such address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It does not begin as one.
    #[error("it has to begin with `ssh://`")]
    Scheme,
    /// It is longer than any.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// A user name that is none.
    #[error("the user may have letters, digits, `.`, `_` and `-`, and not begin with `-`")]
    User,
    /// A host that is none.
    #[error("the host may be a name, an address, or an IPv6 address in brackets")]
    Host,
    /// A port that is none.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// A home that cannot be passed on.
    #[error("the home may have letters, digits, `/`, `.`, `_`, `+`, `@` and `-`")]
    Home,
}

impl HostAddress {
    /// What the other machine's shell is to run: any shell starts the one that is everywhere.
    pub fn command(&self) -> String {
        let home = self.home.as_ref();
        let home = home.map_or_else(String::new, |home| format!(" --home {home}"));
        format!("exec sh -c 'PATH=\"{MORE_PATH}\" exec p2pkgs -q{home} build-server'")
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SshTarget { user, host, port } = &self.target;
        f.write_str("ssh://")?;
        if let Some(user) = user {
            write!(f, "{user}@")?;
        }
        if host.contains(':') {
            write!(f, "[{host}]")?;
        } else {
            f.write_str(host)?;
        }
        if let Some(port) = port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.home.as_deref().unwrap_or_default())
    }
}

impl FromStr for HostAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        let rest = text.strip_prefix("ssh://").ok_or(AddressError::Scheme)?;
        let (authority, home) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let home = match home.trim_end_matches('/') {
            "" => None,
            home if home.chars().all(|c| is_plain(c) || "/+@".contains(c)) => Some(home.to_owned()),
            _ => return Err(AddressError::Home),
        };
        let (user, machine) = match authority.rsplit_once('@') {
            Some((user, machine)) => (Some(user), machine),
            None => (None, authority),
        };
        if !user.is_none_or(is_word) {
            return Err(AddressError::User);
        }
        let (host, port) = host_and_port(machine)?;
        let target = SshTarget {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        };
        Ok(Self { target, home })
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), AddressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(AddressError::Host)?;
        let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
        (Some(host).filter(|_| is_address), port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (Some(host).filter(|host| is_word(host)), port)
    };
    let host = host.ok_or(AddressError::Host)?;
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.strip_prefix(':').ok_or(AddressError::Host)?;
    let port = digits.parse().ok().filter(|port| *port > 0);
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    Ok((
        host,
        Some(port.filter(|_| plain).ok_or(AddressError::Port)?),
    ))
}

/// A word that no program takes for an option.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain)
}

const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "ssh://big",
            "ssh://me@big.example.org:2222/srv/p2pkgs",
            "ssh://[::1]:22",
            "ssh://192.168.1.10/home/me/.local/share/p2pkgs",
        ] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), text);
        }
        let slash: HostAddress = "ssh://big/".parse().unwrap();
        assert_eq!(slash.to_string(), "ssh://big");
        assert!(!slash.command().contains("--home"));
        let home: HostAddress = "ssh://big/srv/p".parse().unwrap();
        assert!(
            home.command()
                .contains("p2pkgs -q --home /srv/p build-server")
        );
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_refused() {
        for (text, error) in [
            ("big", AddressError::Scheme),
            ("ssh://", AddressError::Host),
            ("ssh://-oProxyCommand=x", AddressError::Host),
            ("ssh://a b", AddressError::Host),
            ("ssh://[::1", AddressError::Host),
            ("ssh://[x]", AddressError::Host),
            ("ssh://[::1]x", AddressError::Host),
            ("ssh://@big", AddressError::User),
            ("ssh://-l@big", AddressError::User),
            ("ssh://me:secret@big", AddressError::User),
            ("ssh://big:0", AddressError::Port),
            ("ssh://big:", AddressError::Port),
            ("ssh://big:+1", AddressError::Port),
            ("ssh://big:65536", AddressError::Port),
            ("ssh://big/a'b", AddressError::Home),
            ("ssh://big/$(x)", AddressError::Home),
            ("ssh://big/a b", AddressError::Home),
        ] {
            assert_eq!(text.parse::<HostAddress>(), Err(error), "{text}");
        }
        let long = format!("ssh://{}", "a".repeat(BYTES_MAX));
        assert_eq!(long.parse::<HostAddress>(), Err(AddressError::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_holds_nothing_that_a_shell_knows(rest in ".{0,40}") {
            if let Ok(address) = format!("ssh://{rest}").parse::<HostAddress>() {
                let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-/+@:[]".contains(c));
                prop_assert!(!address.to_string().contains(odd));
                prop_assert!(!address.target.host.starts_with('-'));
            }
        }
    }
}
