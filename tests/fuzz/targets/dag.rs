//! A dag-pb block: read as protobuf and as UnixFS, or refused; what is read is written and read again as the same.
#![no_main]

use base::Codec;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use store::dag::{Node, PbNode};

fuzz_target!(|input: &[u8]| {
    let block = Bytes::copy_from_slice(input);
    let _ = Node::decode(Codec::DagPb, &block);
    if let Ok(node) = PbNode::decode(&block) {
        let again = Bytes::from(node.encode());
        assert_eq!(PbNode::decode(&again).expect("we wrote it"), node);
    }
});
