//! A lead and an owner that talk over loopback, both on the thread of the test.

use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::actors::stock::testing::{OneJournal, all_shards, directory, one_for, product, settings, until};
use crate::actors::stock::{About, Answer, Ask, NodeName, NotDone, Pace, Route};
use crate::clock::Clock;
use crate::domain::stock::{Command, Sequence};
use crate::http::front::abroad::marked;
use crate::http::front::testing::{front, keys};
use crate::http::front::{Standing, Ways, desk};
use crate::logs;
use crate::peer::{Link, Side, Unanswered};

const LEAD: u64 = 1;
const OWNER: u64 = 2;

/// What the owner's node was told, which it does at once.
struct Obedient {
    directory: Directory,
    told: Mutex<Vec<String>>,
    /// As the database would say.
    leads: Mutex<u64>,
}

impl Follower for Obedient {
    fn lead(&self, Word { lead: session, .. }: Word) -> LocalBoxFuture<'static, Result<(), NotFollowed>> {
        self.told.lock().unwrap().push(format!("lead {session}"));
        let (directory, leads) = (self.directory.clone(), *self.leads.lock().unwrap());
        async move {
            if leads != session {
                return Err(NotFollowed::AnotherLeads);
            }
            directory.routes().unwrap().follow(session).await;
            Ok(())
        }
        .boxed_local()
    }

    fn let_go(&self, _: Word, shards: Vec<u16>) -> LocalBoxFuture<'static, Result<(), NotFollowed>> {
        self.told.lock().unwrap().push(format!("let go of {}", shards.len()));
        let directory = self.directory.clone();
        async move {
            directory.let_go(&shards).await;
            Ok(())
        }
        .boxed_local()
    }
}

fn word(lead: u64) -> Word {
    Word { lead, number: 1 }
}

struct Story {
    journal: OneJournal,
    lead: Directory,
    owner: Directory,
    obedient: Arc<Obedient>,
    ways: Ways,
    /// The owner's node.
    name: NodeName,
    serving: JoinHandle<()>,
}

impl Story {
    async fn begin() -> Story {
        let (journal, clock) = (OneJournal::default(), Clock::start());
        let ways = Ways::new(keys(), clock.clone());
        let lead = directory(Arc::new(ways.clone()), &journal, &clock, LEAD);
        let owner = directory(Arc::new(ways.clone()), &journal, &clock, OWNER);
        let obedient = Obedient { directory: owner.clone(), told: Mutex::default(), leads: Mutex::new(LEAD) };
        let obedient = Arc::new(obedient);
        let front = front(Standing::Nowhere, clock);
        front.owners.store(Some(Arc::new(Owners::new(owner.clone(), obedient.clone()))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = NodeName { session: OWNER, address: listener.local_addr().unwrap().to_string() };
        let serving = actix_web::rt::spawn(async move {
            let mut serving = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.push(Aborted(actix_web::rt::spawn(peer::serve(stream, keys(), desk(&front)))));
            }
        });
        lead.routes().unwrap().follow(LEAD).await;
        owner.settle(&all_shards(), Route::Here).await;
        lead.settle(&all_shards(), Route::Away(Arc::new(name.clone()))).await;
        Story { journal, lead, owner, obedient, ways, name, serving }
    }

    fn told(&self) -> Vec<String> {
        self.obedient.told.lock().unwrap().clone()
    }
}

/// A connection that ends with whoever serves it.
struct Aborted(JoinHandle<Result<(), peer::PeerError>>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[actix_web::test]
async fn an_owner_is_asked_over_the_wire_and_shows_what_it_has() {
    let story = Story::begin().await;
    let (lead, product) = (&story.lead, product(1));
    assert_eq!(story.ways.lead(&story.name, word(LEAD)).await, Ok(()));
    let create = Command::Create { settings: settings(), stock: 500 };
    assert!(matches!(lead.ask(product, create).await, Ok(Answer::Done { .. })));
    let replies =
        join_all((0..1_000).map(|number| lead.reserve(product, one_for(number, product, true), None))).await;
    let held = replies.iter().filter_map(|reply| match reply {
        Ok(Answer::Reserved(receipt)) => Some(receipt.sequence.0),
        _ => None,
    });
    assert!(held.eq(2..=501), "in the order of asking");
    let order = one_for(3, product, true).order;
    assert_eq!(lead.find(order).await.unwrap().unwrap().order, order);

    // All that is shown there is shown here, and what is published from then on.
    let other = crate::actors::stock::testing::product(2);
    let create = Command::Create { settings: settings(), stock: 3 };
    story.owner.ask(other, create).await.unwrap();
    assert!(lead.peek(other).is_none());
    let watching = actix_web::rt::spawn({
        let (ways, lead, name) = (story.ways.clone(), lead.clone(), story.name.clone());
        async move { ways.views(&lead, &name, LEAD).await }
    });
    until("it is shown", || lead.peek(other).is_some()).await;
    story.owner.ask(other, Command::Pause).await.unwrap();
    until("it is shown as paused", || lead.peek(other).is_some_and(|view| view.paused)).await;

    // The lead takes a shard away, and has it itself.
    let shard = product.shard();
    lead.let_go(&[shard]).await;
    assert_eq!(story.ways.let_go(&story.name, word(LEAD), vec![shard]).await, Ok(()));
    lead.settle(&[shard], Route::Here).await;
    let gone = Command::Release { order, cause: crate::domain::stock::Cause::Cancelled, by: 1 };
    assert!(matches!(lead.ask(product, gone).await, Ok(Answer::Done { .. })));
    assert_eq!(story.journal.ledger(product).counts().held, 499);
    assert_eq!(story.journal.forks(), 0);

    // Another leads: what is shown to the one before ends, and nothing that it says is done.
    *story.obedient.leads.lock().unwrap() = 3;
    assert_eq!(story.ways.lead(&story.name, word(LEAD)).await, Err(NotAsked::Elsewhere));
    assert_eq!(story.ways.lead(&story.name, word(3)).await, Ok(()));
    assert_eq!(watching.await.unwrap(), NotAsked::Unknown);
    assert_eq!(story.ways.let_go(&story.name, word(LEAD), vec![1]).await, Err(NotAsked::Elsewhere));
    assert_eq!(story.ways.views(lead, &story.name, LEAD).await, NotAsked::Elsewhere);
    assert_eq!(story.told(), ["lead 1", "let go of 1", "lead 1", "lead 3"]);
    story.serving.abort();
}

#[actix_web::test]
async fn what_makes_no_sense_or_is_for_another_is_refused() {
    let story = Story::begin().await;
    story.ways.lead(&story.name, word(LEAD)).await.unwrap();
    let link = Link::to(story.name.address.clone(), keys());
    let request = |target: &str, body: Vec<u8>| peer::Request {
        method: "POST".to_owned(),
        target: target.to_owned(),
        from: None,
        side: Side::Owners,
        hops: 1,
        session: OWNER.cast_signed(),
        headers: Vec::new(),
        body: body.into(),
        patience: Duration::from_secs(20),
    };
    let asks = vec![Ask::Command(Command::Reserve(one_for(1, product(1), true)))];
    let about = About::Product { product: product(1), asks };
    let question = Question { lead: LEAD, number: 1, pace: Pace::default(), about };
    let good = postcard::to_stdvec(&question).unwrap();
    let status = async |request| link.ask(request).await.map(|reply| reply.status);
    assert_eq!(status(request(ASK, good.clone())).await, Ok(200));
    let more = [good.as_slice(), &[0]].concat();
    for body in [Vec::new(), vec![0xff; 40], good[..good.len() - 1].to_vec(), more] {
        for target in [ASK, VIEWS, super::LEAD, LET_GO] {
            assert_eq!(status(request(target, body.clone())).await, Ok(400), "{target} {body:?}");
        }
    }
    assert_eq!(status(request("/v1/products", good.clone())).await, Ok(400));
    let beyond = postcard::to_stdvec(&LetGo { word: word(LEAD), shards: vec![SHARDS] }).unwrap();
    assert_eq!(status(request(LET_GO, beyond)).await, Ok(400));
    let elsewhere = Err(Unanswered::Elsewhere { session: LEAD.cast_signed() });
    let former = peer::Request { session: 9, ..request(ASK, good.clone()) };
    assert_eq!(status(former).await, elsewhere, "a session before");
    let wandered = peer::Request { hops: peer::HOPS_MAX + 1, ..request(ASK, good.clone()) };
    assert_eq!(status(wandered).await, Err(Unanswered::Elsewhere { session: 0 }), "through too many nodes");
    let stranger = postcard::to_stdvec(&Question { lead: 9, ..question }).unwrap();
    assert_eq!(status(request(ASK, stranger)).await, elsewhere, "of a lead that is not followed");
    // What comes in by HTTP at a node never gets here.
    for side in [Side::Shop, Side::Ops] {
        let asked = peer::Request { side, ..request(ASK, good.clone()) };
        assert_eq!(status(asked).await, Err(Unanswered::Elsewhere { session: 0 }), "{side:?}");
    }
    assert_eq!(story.told(), ["lead 1"]);
    story.serving.abort();
}

/// A line of either node's log is found by one word.
#[test]
fn a_question_bears_the_name_of_the_request_that_it_is_for() {
    const TRACE: &str = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
    let of =
        Mark { request_id: HeaderValue::from_static("build-42/7"), trace: Trace::read(TRACE.as_bytes()) };
    let sent = logs::about(&mut Some(of.clone()), marked);
    let heard = mark(&sent).unwrap();
    assert_eq!((heard.request_id, heard.trace), (of.request_id, of.trace));
    assert!(marked().is_empty(), "it is for nobody");
    assert!(mark(&[]).is_none(), "an older node says nothing of it");
    let too_long = "x".repeat(129);
    for nonsense in ["", "two words", "달", &too_long] {
        assert!(mark(&[("x-request-id".to_owned(), nonsense.as_bytes().to_vec())]).is_none(), "{nonsense}");
    }
    let untraced = [("x-request-id", "r1"), ("traceparent", "nonsense")];
    let heard = mark(&untraced.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))).unwrap();
    assert_eq!((heard.request_id.to_str().unwrap(), heard.trace), ("r1", None));
}

#[actix_web::test]
async fn a_node_that_dies_answers_nobody_and_its_questions_wait_for_the_next() {
    let story = Story::begin().await;
    let product = product(1);
    story.ways.lead(&story.name, word(LEAD)).await.unwrap();
    let create = Command::Create { settings: settings(), stock: 5 };
    story.lead.ask(product, create).await.unwrap();
    story.serving.abort();
    // Nobody reads any more, and nobody writes in its name.
    assert!(story.serving.await.unwrap_err().is_cancelled());
    let asked = actix_web::rt::spawn({
        let lead = story.lead.clone();
        async move { lead.reserve(product, one_for(1, product, true), None).await }
    });
    until("it waits", || story.lead.waiting() == 1).await;
    story.owner.drain().await;
    story.lead.settle(&[product.shard()], Route::Here).await;
    assert!(matches!(asked.await.unwrap(), Ok(Answer::Reserved(held)) if held.sequence == Sequence(2)));
    // And who asks another node's directory that has closed hears it.
    assert_eq!(story.owner.order(product, one_for(1, product, true).order).await, Err(NotDone::Unavailable));
    assert!(!story.owner.house().lagging.load(Ordering::Relaxed));
}

#[test]
fn a_stream_of_views_is_read_however_it_is_cut() {
    let view = |sequence| View {
        sequence: Sequence(sequence),
        counts: Default::default(),
        settings: Arc::new(settings()),
        paused: false,
        archived: false,
        as_of: crate::domain::stock::Millis(1),
    };
    let some = |many| -> Views { (0..many).map(|n| (product(u128::from(n)), view(n))).collect() };
    let said = [some(1), some(VIEWS_MAX as u64), some(2)];
    let bytes: Vec<u8> = said.iter().flat_map(|views| framed(views).unwrap()).collect();
    for size in [1, 7, 16_384] {
        let (mut come, mut heard) = (Unframed::default(), Vec::new());
        for piece in bytes.chunks(size) {
            come.push(piece);
            while let Some(views) = come.next().unwrap() {
                heard.push(views);
            }
        }
        assert_eq!(heard, said);
    }
    let mut come = Unframed::default();
    come.push(&[0xff; 4]);
    assert!(come.next().is_err(), "a length that lies");
    let mut come = Unframed::default();
    come.push(&[1, 0, 0, 0, 9]);
    assert!(come.next().is_err(), "no views");
}
