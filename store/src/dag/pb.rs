//! dag-pb: nodes with links and data (IPLD specification "DAG-PB").
//!
//! Reading is strict, with two tolerances the specification asks for: data before links, and unsorted links. Bytes that
//! were read are never re-encoded under the same CID, so writing knows the canonical form only.

use base::Cid;
use bytes::Bytes;

use super::DagError;
use super::wire::{Reader, put_bytes_field, put_varint_field};

const NODE_DATA: u64 = 1;
const NODE_LINKS: u64 = 2;
const LINK_HASH: u64 = 1;
const LINK_NAME: u64 = 2;
const LINK_TSIZE: u64 = 3;

/// A dag-pb node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PbNode {
    /// Its links, in the order of the bytes.
    pub links: Vec<PbLink>,
    /// Its data; absent is not the same as empty.
    pub data: Option<Bytes>,
}

/// A link of a dag-pb node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PbLink {
    /// What it links to.
    pub cid: Cid,
    /// Its name. Writers always set it, be it empty: every published CID of a file depends on that.
    pub name: Option<String>,
    /// Size of the whole DAG below in bytes as the writer claims; nothing may rely on it.
    pub tsize: Option<u64>,
}

impl PbNode {
    /// Decodes a block.
    ///
    /// # Errors
    /// [`DagError::Malformed`] for everything the specification forbids.
    pub fn decode(block: &Bytes) -> Result<Self, DagError> {
        let mut node = Self::default();
        let mut links_ended = false;
        let mut reader = Reader::new(block.clone());
        while let Some((field, value)) = reader.field()? {
            match field {
                NODE_LINKS if links_ended => {
                    return Err(DagError::Malformed("links in two places"));
                }
                NODE_LINKS => node.links.push(PbLink::decode(value.bytes()?)?),
                NODE_DATA if node.data.is_some() => {
                    return Err(DagError::Malformed("data twice"));
                }
                NODE_DATA => {
                    node.data = Some(value.bytes()?);
                    links_ended = !node.links.is_empty();
                }
                _ => return Err(DagError::Malformed("unknown field in a node")),
            }
        }
        Ok(node)
    }

    /// The canonical bytes of this node: links first, in the order given.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut link_bytes = Vec::new();
        for link in &self.links {
            link_bytes.clear();
            link.encode(&mut link_bytes);
            put_bytes_field(&mut out, NODE_LINKS, &link_bytes);
        }
        if let Some(data) = &self.data {
            put_bytes_field(&mut out, NODE_DATA, data);
        }
        out
    }
}

impl PbLink {
    fn decode(bytes: Bytes) -> Result<Self, DagError> {
        let (mut cid, mut name, mut tsize) = (None, None, None);
        let mut last = 0;
        let mut reader = Reader::new(bytes);
        while let Some((field, value)) = reader.field()? {
            if field <= last {
                return Err(DagError::Malformed(
                    "fields of a link repeated or out of order",
                ));
            }
            last = field;
            match field {
                LINK_HASH => cid = Some(decode_cid(&value.bytes()?)?),
                LINK_NAME => {
                    let text = String::from_utf8(value.bytes()?.into())
                        .map_err(|_| DagError::Malformed("name of a link is not UTF-8"))?;
                    name = Some(text);
                }
                LINK_TSIZE => tsize = Some(value.varint()?),
                _ => return Err(DagError::Malformed("unknown field in a link")),
            }
        }
        let cid = cid.ok_or(DagError::Malformed("link without a CID"))?;
        Ok(Self { cid, name, tsize })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes_field(out, LINK_HASH, &self.cid.to_bytes());
        if let Some(name) = &self.name {
            put_bytes_field(out, LINK_NAME, name.as_bytes());
        }
        if let Some(tsize) = self.tsize {
            put_varint_field(out, LINK_TSIZE, tsize);
        }
    }
}

fn decode_cid(bytes: &Bytes) -> Result<Cid, DagError> {
    let mut rest = &bytes[..];
    let cid = Cid::read_bytes(&mut rest).map_err(|_| DagError::Malformed("unreadable CID"))?;
    if !rest.is_empty() {
        return Err(DagError::Malformed("bytes after a CID"));
    }
    Ok(cid)
}

#[cfg(test)]
mod tests {
    use base::{Codec, Sha256, block_cid};
    use proptest::prelude::*;

    use super::*;
    use crate::dag::testing::{cid, hex};

    fn decode(text: &str) -> Result<PbNode, DagError> {
        PbNode::decode(&hex(text).into())
    }

    #[test]
    fn the_empty_node_is_legal() {
        assert_eq!(decode(""), Ok(PbNode::default()));
        assert!(PbNode::default().encode().is_empty());
    }

    #[test]
    fn data_may_stand_before_links_but_links_stay_together() {
        let data = "0a020801";
        let link =
            "122612240155122000000000000000000000000000000000000000000000000000000000000000ff"
                .replacen("122612", "12260a", 1);
        let node = decode(&format!("{data}{link}{link}")).unwrap();
        assert_eq!(node.links.len(), 2);
        assert_eq!(
            node.encode(),
            hex(&format!("{link}{link}{data}")),
            "links come first when written"
        );
        assert_eq!(
            decode(&format!("{link}{data}{link}")),
            Err(DagError::Malformed("links in two places"))
        );
        assert_eq!(
            decode(&format!("{data}{data}")),
            Err(DagError::Malformed("data twice"))
        );
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for (bytes, reason) in [
            ("1a00", "unknown field in a node"),
            ("0801", "wrong wire type, bytes were expected"),
            ("0a05", "truncated field"),
            ("1200", "link without a CID"),
            ("12021200", "link without a CID"),
            ("120418011801", "fields of a link repeated or out of order"),
            ("12030a0101", "unreadable CID"),
            ("120412020aff", "name of a link is not UTF-8"),
            ("12022001", "unknown field in a link"),
            ("0f00", "unknown wire type"),
        ] {
            assert_eq!(decode(bytes), Err(DagError::Malformed(reason)), "{bytes}");
        }
    }

    #[test]
    fn a_link_keeps_the_version_of_its_cid() {
        let v0 = cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
        let link = PbLink {
            cid: v0,
            name: Some(String::new()),
            tsize: Some(6),
        };
        let node = PbNode {
            links: vec![link],
            data: None,
        };
        assert_eq!(PbNode::decode(&node.encode().into()), Ok(node));
    }

    proptest! {
        #[test]
        fn nodes_survive_a_round_trip(
            links in proptest::collection::vec((any::<[u8; 32]>(), any::<Option<String>>(), any::<Option<u64>>()), 0..5),
            data: Option<Vec<u8>>,
        ) {
            let links = links
                .into_iter()
                .map(|(digest, name, tsize)| PbLink {
                    cid: block_cid(Codec::Raw, &Sha256::from_bytes(digest)),
                    name,
                    tsize,
                })
                .collect();
            let node = PbNode { links, data: data.map(Bytes::from) };
            prop_assert_eq!(PbNode::decode(&node.encode().into()), Ok(node));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = PbNode::decode(&bytes.into());
        }
    }
}
