//! What peers say that they have seen.

use super::*;
use crate::{NoWitness, Witness};

/// Has seen one thing.
#[derive(Debug)]
struct Seen(Sha256, &'static [u8]);

impl Witness for Seen {
    fn about(&self, topic: &Sha256) -> Vec<Vec<u8>> {
        let is_it = *topic == self.0;
        is_it.then(|| self.1.to_vec()).into_iter().collect()
    }
}

async fn witness(witness: impl Witness + 'static) -> TestNode {
    TestNode::start(Config {
        witness: Arc::new(witness),
        ..config(DhtMode::Server, &[])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_are_connected_are_heard_and_those_who_are_named() {
    let (topic, other) = (Sha256::of(b"topic"), Sha256::of(b"other"));
    let [a, b] = [Seen(topic, b"this"), Seen(topic, b"that")];
    let (a, b) = (witness(a).await, witness(b).await);
    let c = witness(NoWitness).await;
    let user = TestNode::client(&[&a.address, &b.address, &c.address]).await;
    let client = user.client_handle();
    let said = |answers: &[Vec<u8>]| vec![Vec::new(), answers.to_vec()];
    let mut heard = Vec::new();
    // They may have to be met first.
    while heard.len() < 3 {
        let asked = client.hear(vec![other, topic], &[], Duration::from_secs(1));
        heard = in_time("a hearing", asked).await.unwrap();
    }
    let answers = |node: &TestNode| {
        let of_node = heard.iter().find(|heard| heard.peer == node.peer_id());
        of_node.unwrap().answers.clone()
    };
    assert_eq!(answers(&a), said(&[b"this".to_vec()]));
    assert_eq!(answers(&b), said(&[b"that".to_vec()]));
    assert_eq!(answers(&c), said(&[]));
    // Who is named is waited for, and nobody else.
    let named = [b.peer_id(), PeerId::random()];
    let asked = client.hear(vec![topic], &named, Duration::from_secs(3600));
    let heard = in_time("a named witness", asked).await.unwrap();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].answers, [[b"that".to_vec()]]);
}
