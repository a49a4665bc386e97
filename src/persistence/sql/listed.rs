//! Statements over lists: every list of values has one of a few fixed lengths, so that each statement is compiled once.

use super::{Query, query};
use crate::domain::id::TypedId;

/// The lengths a list of values may have. What may be filled up is one piece up to the longest of them.
const LENGTHS: [usize; 9] = [256, 128, 64, 32, 16, 8, 4, 2, 1];
/// Those of a list that is cut into as few pieces as can be: a piece costs two threads a wake-up each, which is as much as ten
/// rows and more.
const FINE_LENGTHS: [usize; 38] = [
    256, 192, 128, 96, 64, 48, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14,
    13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1,
];
/// Those of a list of cases: whoever looks for his own walks all of them.
const CASE_LENGTHS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// One statement over a list of values, compiled once for each of a few lengths.
pub struct Listed {
    by_length: Vec<(usize, String)>,
}

impl Listed {
    /// `head`, then `item` once for each value with commas between, then `tail`. All three are literals.
    pub fn new(head: &'static str, item: &'static str, tail: &'static str) -> Listed {
        Listed::of(&LENGTHS, head, item, tail)
    }

    /// The same in more lengths, for what is written while somebody waits, or may.
    pub fn fine(head: &'static str, item: &'static str, tail: &'static str) -> Listed {
        Listed::of(&FINE_LENGTHS, head, item, tail)
    }

    /// `head`, then a case for each value, `middle`, then a `?` for each with commas between, and `tail`: many rows change at
    /// once, each to something of its own. What is bound is each row with its value, and then each row.
    pub fn cases(head: &'static str, middle: &'static str, tail: &'static str) -> Listed {
        let with = |length: &usize| {
            let (cases, rows) = (" when ? then ?".repeat(*length), vec!["?"; *length].join(","));
            (*length, format!("{head}{cases}{middle}{rows}{tail}"))
        };
        Listed { by_length: CASE_LENGTHS.iter().map(with).collect() }
    }

    fn of(lengths: &[usize], head: &'static str, item: &'static str, tail: &'static str) -> Listed {
        let with = |length: &usize| (*length, format!("{head}{}{tail}", vec![item; *length].join(",")));
        Listed { by_length: lengths.iter().map(with).collect() }
    }

    /// The questions to ask of the rows that these ids name, each with its ids.
    pub fn named<'v>(&'static self, ids: &'v [impl TypedId]) -> impl Iterator<Item = Query<'v>> {
        self.filled(ids).map(|(sql, piece)| piece.fold(query(sql), |query, id| query.bind(&id.sixteen()[..])))
    }

    /// `values` cut into pieces, each with the statement of its length.
    pub fn cut<'v, T>(&'static self, values: &'v [T]) -> impl Iterator<Item = (&'static str, &'v [T])> {
        let mut rest = values;
        std::iter::from_fn(move || {
            let (length, sql) = self.by_length.iter().find(|(length, _)| *length <= rest.len())?;
            let (piece, behind) = rest.split_at(*length);
            rest = behind;
            Some((sql.as_str(), piece))
        })
    }

    /// The same in fewer pieces, for a list in which a value may stand twice: a piece may be longer than its values, and is to
    /// be filled up with the last of them.
    pub fn filled<'v, T>(
        &'static self,
        values: &'v [T],
    ) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'v T>)> {
        let mut rest = values;
        std::iter::from_fn(move || {
            let last = rest.last()?;
            let longer = self.by_length.iter().rev().find(|(length, _)| *length >= rest.len());
            let shorter = self.by_length.iter().find(|(length, _)| *length <= rest.len());
            let (length, sql) = longer.or(shorter)?;
            let (piece, behind) = rest.split_at(rest.len().min(*length));
            rest = behind;
            Some((sql.as_str(), piece.iter().chain(std::iter::repeat(last)).take(*length)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn a_case_and_a_row_stand_for_each_value() {
        static CASES: LazyLock<Listed> =
            LazyLock::new(|| Listed::cases("case id", " end where id in (", ")"));
        let texts: Vec<(&str, usize)> =
            CASES.filled(&[7, 8, 9]).map(|(sql, piece)| (sql, piece.count())).collect();
        let cases = " when ? then ? when ? then ? when ? then ? when ? then ?";
        assert_eq!(texts, [(&*format!("case id{cases} end where id in (?,?,?,?)"), 4)]);
    }

    #[test]
    fn a_list_is_cut_into_few_lengths() {
        static LISTED: LazyLock<Listed> = LazyLock::new(|| Listed::new("in (", "?", ")"));
        let values: Vec<u32> = (0..343).collect();
        let lengths: Vec<_> = LISTED.cut(&values).map(|(_, piece)| piece.len()).collect();
        assert_eq!(lengths, [256, 64, 16, 4, 2, 1]);
        assert_eq!(LISTED.cut(&values[..4]).next(), Some(("in (?,?,?,?)", &[0, 1, 2, 3][..])));
        assert_eq!(LISTED.cut(&values[..0]).next(), None);
    }

    #[test]
    fn a_list_is_filled_up_to_the_next_length() {
        static LISTED: LazyLock<Listed> = LazyLock::new(|| Listed::new("in (", "?", ")"));
        for (many, pieces) in [
            (0, &[][..]),
            (1, &[1]),
            (3, &[4]),
            (6, &[8]),
            (63, &[64]),
            (65, &[128]),
            (100, &[128]),
            (600, &[256, 256, 128]),
        ] {
            let values: Vec<u32> = (0..many).collect();
            let filled: Vec<(&str, Vec<&u32>)> =
                LISTED.filled(&values).map(|(sql, piece)| (sql, piece.collect())).collect();
            let found: Vec<_> = filled.iter().map(|(_, piece)| piece.len()).collect();
            assert_eq!(found, pieces, "{many}");
            let mut all: Vec<u32> = filled.iter().flat_map(|(_, piece)| piece).map(|v| **v).collect();
            all.dedup();
            assert_eq!(all, values);
            assert!(filled.iter().all(|(sql, piece)| sql.matches('?').count() == piece.len()));
        }
    }
}
