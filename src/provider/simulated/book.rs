//! What the simulated provider remembers: every payment and refund it has heard of, in memory, and before that in a file.
//!
//! The provider stands for somebody else, so a killed shop must not make it forget: each line of the file is written with one
//! call before its effect is told to anybody, and is in the hands of the system then. It is not synced. The last line about
//! something is the one that counts. It is one process's: of several nodes each has its own, and knows nothing of the others'.
//! Always true: what was given back of a payment is never more than was taken.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::domain::amount::Money;
use crate::domain::id::{OrderId, PaymentId, RefundId};

pub const FILE: &str = "simulated-provider.book";
const HEAD: &str = "stockade simulated provider 1";
/// Longer than any line that is written.
const LINE_BYTES_MAX: usize = 512;

/// Why the bank said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum No {
    CardDeclined,
    InvalidToken,
}

impl No {
    pub fn as_str(self) -> &'static str {
        match self {
            No::CardDeclined => "card_declined",
            No::InvalidToken => "invalid_token",
        }
    }
}

/// How a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its first call was lost on the way in: nothing has happened.
    Lost,
    /// It will be this when it is asked about.
    PendingThen(bool),
    Captured,
    Declined(No),
    Cancelled,
}

impl State {
    const ALL: [State; 7] = [
        State::Lost,
        State::PendingThen(true),
        State::PendingThen(false),
        State::Captured,
        State::Declined(No::CardDeclined),
        State::Declined(No::InvalidToken),
        State::Cancelled,
    ];

    fn word(self) -> &'static str {
        match self {
            State::Lost => "lost",
            State::PendingThen(true) => "pending_then_captured",
            State::PendingThen(false) => "pending_then_declined",
            State::Captured => "captured",
            State::Declined(no) => no.as_str(),
            State::Cancelled => "cancelled",
        }
    }

    fn of(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// One payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub order: OrderId,
    /// What was asked for.
    pub asked: Money,
    /// What was taken for it, if anything: the same, unless the token wants a mistake.
    pub taken: Money,
    pub state: State,
    /// Tries that each of its refunds fails at first.
    pub refund_fails: u8,
    /// Minor units given back; follows from the refunds.
    pub refunded: i64,
}

impl Entry {
    pub fn captured(&self) -> i64 {
        if self.state == State::Captured { self.taken.amount } else { 0 }
    }
}

/// One refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    pub payment: PaymentId,
    pub amount: Money,
    /// How often it was tried in vain.
    pub tries: u8,
    pub done: bool,
}

pub struct Book {
    /// `None`: it is only looked at.
    file: Option<File>,
    line: String,
    charges: HashMap<PaymentId, Entry>,
    refunds: HashMap<RefundId, Return>,
}

impl Book {
    /// Reads what there is. A last line without its end was never told to anybody, and is cut off.
    pub fn open(path: &Path) -> io::Result<Book> {
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let (mut book, whole) = Book::read(&file)?;
        file.set_len(whole)?;
        book.file = Some(file);
        if whole == 0 {
            book.write(format_args!("{HEAD}"))?;
        }
        Ok(book)
    }

    /// Reads what there is, and leaves it as it is. A book that nobody has begun is empty.
    pub fn look(path: &Path) -> io::Result<Book> {
        match File::open(path) {
            Ok(file) => Ok(Book::read(&file)?.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::empty()),
            Err(error) => Err(error),
        }
    }

    fn empty() -> Book {
        Book {
            file: None,
            line: String::with_capacity(LINE_BYTES_MAX),
            charges: HashMap::new(),
            refunds: HashMap::new(),
        }
    }

    /// The book, and how many bytes there are of whole lines.
    fn read(file: &File) -> io::Result<(Book, u64)> {
        let mut book = Book::empty();
        let whole = book.hear_all(BufReader::with_capacity(1 << 16, file))?;
        Ok((book, whole))
    }

    fn hear_all(&mut self, mut reader: impl BufRead) -> io::Result<u64> {
        let mut whole = 0;
        let mut line = Vec::with_capacity(LINE_BYTES_MAX);
        for number in 1.. {
            line.clear();
            let read = io::Read::take(&mut reader, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                if read == LINE_BYTES_MAX {
                    return Err(damaged(number));
                }
                break;
            }
            let text = std::str::from_utf8(&line[..read - 1]).map_err(|_| damaged(number))?;
            let understood = if number == 1 { (text == HEAD).then_some(()) } else { self.hear(text) };
            understood.ok_or_else(|| damaged(number))?;
            whole += read as u64;
        }
        Ok(whole)
    }

    /// Takes over one line.
    fn hear(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        match next()? {
            "charge" => {
                let (id, order) = (next()?.parse().ok()?, next()?.parse().ok()?);
                let asked = money(next()?, next()?)?;
                let taken = money(next()?, next()?)?;
                let (state, refund_fails) = (State::of(next()?)?, next()?.parse().ok()?);
                self.keep_charge(id, Entry { order, asked, taken, state, refund_fails, refunded: 0 });
            }
            "refund" => {
                let (id, payment) = (next()?.parse().ok()?, next()?.parse().ok()?);
                let amount = money(next()?, next()?)?;
                let tries = next()?.parse().ok()?;
                let done = match next()? {
                    "done" => true,
                    "not_yet" => false,
                    _ => return None,
                };
                self.keep_refund(id, Return { payment, amount, tries, done });
            }
            _ => return None,
        }
        next().is_none().then_some(())
    }

    pub fn charge(&self, id: PaymentId) -> Option<Entry> {
        self.charges.get(&id).copied()
    }

    pub fn refund(&self, id: RefundId) -> Option<Return> {
        self.refunds.get(&id).copied()
    }

    pub fn charges(&self) -> impl Iterator<Item = (PaymentId, &Entry)> {
        self.charges.iter().map(|(id, entry)| (*id, entry))
    }

    pub fn refunds(&self) -> impl Iterator<Item = (RefundId, &Return)> {
        self.refunds.iter().map(|(id, refund)| (*id, refund))
    }

    /// Writes down how a payment stands. An error means that it stands as it did.
    pub fn put_charge(&mut self, id: PaymentId, entry: Entry) -> io::Result<()> {
        let Entry { order, asked, taken, state, refund_fails, .. } = entry;
        self.write(format_args!(
            "charge {id} {order} {} {} {} {} {} {refund_fails}",
            asked.amount,
            asked.currency,
            taken.amount,
            taken.currency,
            state.word(),
        ))?;
        self.keep_charge(id, entry);
        Ok(())
    }

    /// The same for a refund.
    pub fn put_refund(&mut self, id: RefundId, refund: Return) -> io::Result<()> {
        let Return { payment, amount, tries, done } = refund;
        let word = if done { "done" } else { "not_yet" };
        self.write(format_args!(
            "refund {id} {payment} {} {} {tries} {word}",
            amount.amount, amount.currency
        ))?;
        self.keep_refund(id, refund);
        Ok(())
    }

    fn keep_charge(&mut self, id: PaymentId, entry: Entry) {
        let refunded = self.charges.get(&id).map_or(0, |before| before.refunded);
        self.charges.insert(id, Entry { refunded, ..entry });
    }

    fn keep_refund(&mut self, id: RefundId, refund: Return) {
        let before = self.refunds.insert(id, refund);
        if refund.done
            && !before.is_some_and(|before| before.done)
            && let Some(charge) = self.charges.get_mut(&refund.payment)
        {
            charge.refunded = charge.refunded.saturating_add(refund.amount.amount);
        }
    }

    fn write(&mut self, line: fmt::Arguments) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::ReadOnlyFilesystem.into()) };
        self.line.clear();
        // Writing into a string has no way to fail.
        let _ = writeln!(self.line, "{line}");
        // Behind whatever stands there by now: a process that is on its way out writes over nobody.
        let wrote = file.write(self.line.as_bytes())?;
        if wrote < self.line.len() {
            // Half a line in the middle would make the whole unreadable.
            let len = file.metadata()?.len();
            file.set_len(len.saturating_sub(wrote as u64))?;
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

fn money(amount: &str, currency: &str) -> Option<Money> {
    Some(Money { amount: amount.parse().ok()?, currency: currency.parse().ok()? })
}

fn damaged(line: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {line} cannot be understood"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::domain::amount::Currency;
    use crate::domain::stock::Millis;

    fn won(amount: i64) -> Money {
        Money { amount, currency: Currency::KRW }
    }

    fn payment(number: u128) -> PaymentId {
        PaymentId::new(Millis(1_800_000_000_000), number)
    }

    fn entry(state: State) -> Entry {
        let order = OrderId::new(Millis(1_800_000_000_000), 7);
        Entry { order, asked: won(100), taken: won(100), state, refund_fails: 2, refunded: 0 }
    }

    #[test]
    fn what_was_written_down_is_known_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data").join(FILE);
        let refund = RefundId::new(Millis(1), 1);
        let part = |done| Return { payment: payment(1), amount: won(30), tries: 1, done };
        {
            let mut book = Book::open(&path).unwrap();
            for (number, state) in State::ALL.into_iter().enumerate() {
                book.put_charge(payment(number as u128 + 10), entry(state)).unwrap();
            }
            book.put_charge(payment(1), entry(State::Lost)).unwrap();
            book.put_charge(payment(1), entry(State::Captured)).unwrap();
            book.put_refund(refund, part(false)).unwrap();
            book.put_refund(refund, part(true)).unwrap();
            book.put_refund(refund, part(true)).unwrap();
        }
        let book = Book::open(&path).unwrap();
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(book.charge(payment(number as u128 + 10)), Some(entry(state)));
        }
        assert_eq!(book.charge(payment(1)), Some(Entry { refunded: 30, ..entry(State::Captured) }));
        assert_eq!(book.refund(refund), Some(part(true)));
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_damage_before_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut book = Book::open(&path).unwrap();
        book.put_charge(payment(1), entry(State::Captured)).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        book.put_charge(payment(2), entry(State::Captured)).unwrap();
        let both = fs::read_to_string(&path).unwrap();
        for cut in whole.len()..both.len() {
            fs::write(&path, &both[..cut]).unwrap();
            assert_eq!(Book::look(&path).unwrap().charges.len(), 1);
            assert_eq!(fs::read_to_string(&path).unwrap(), both[..cut], "who only looks changes nothing");
            let mut book = Book::open(&path).unwrap();
            assert_eq!((book.charges.len(), fs::read_to_string(&path).unwrap()), (1, whole.clone()));
            book.put_charge(payment(2), entry(State::Captured)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), both);
        }
        for cut in 0..HEAD.len() {
            fs::write(&path, &both[..cut]).unwrap();
            assert_eq!(Book::open(&path).unwrap().charges.len(), 0, "a torn head is a new book");
        }
        for damage in [
            both.replace("captured", "stolen"),
            both.replace("100 KRW", "a lot"),
            both.replace(HEAD, "something else"),
            format!("{both}refund\n"),
            format!("{both}{}", "x".repeat(2 * LINE_BYTES_MAX)),
        ] {
            fs::write(&path, damage).unwrap();
            let told = Book::open(&path).map(|_| ()).unwrap_err().to_string();
            assert!(told.contains("line"), "{told}");
        }
    }

    #[test]
    fn an_opening_that_is_older_writes_over_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut older = Book::open(&path).unwrap();
        let mut newer = Book::open(&path).unwrap();
        newer.put_charge(payment(1), entry(State::Captured)).unwrap();
        older.put_charge(payment(2), entry(State::Captured)).unwrap();
        newer.put_charge(payment(3), entry(State::Captured)).unwrap();
        assert_eq!(Book::open(&path).unwrap().charges.len(), 3);
    }

    #[test]
    fn the_book_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        Book::open(&path).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
