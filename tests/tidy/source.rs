//! Rust files as the tidy rules see them: code without comments, string literals on their own, and test code set apart.
//!
//! A small lexer, not a parser. It knows comments, strings of every kind, character literals and `#[cfg(test)]` items, and
//! keeps every line where it was, so that a complaint can name it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file of this repository.
pub struct Source {
    /// Path from the repository's root, with forward slashes.
    pub path: String,
    /// The file as it stands on disk.
    pub raw: String,
    /// The same number of lines; comments and the contents of literals are blanks.
    pub code: String,
    /// `code` with `#[cfg(test)]` items blanked as well; empty of code in a file that is a test module.
    pub live: String,
    /// Every string literal outside test code: where it opens, and what it says.
    pub literals: Vec<Literal>,
}

pub struct Literal {
    pub line: usize,
    pub text: String,
}

impl Source {
    pub fn parse(path: &str, raw: &str) -> Self {
        let (code, literals) = strip_comments_and_literals(raw);
        let live = strip_test_items(&code);
        let lines: Vec<&str> = live.lines().collect();
        // A literal inside a test item opens on a line whose code has been blanked.
        let literals = literals
            .into_iter()
            .filter(|l| lines.get(l.line - 1).is_some_and(|line| line.contains('"')))
            .collect();
        Source { path: path.to_owned(), raw: raw.to_owned(), code, live, literals }
    }

    /// The top-level module a file of `src/` belongs to: `src/http/order.rs` → `http`, `src/clock.rs` → `clock`.
    pub fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let first = rest.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }
}

/// Every Rust file under the named folders, in a stable order. A folder that does not exist yet has no files.
pub fn rust_files(root: &Path, folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root.join(folder), &mut paths);
    }
    paths.retain(|p| p.extension().is_some_and(|e| e == "rs"));
    let mut files: Vec<Source> = paths
        .iter()
        .filter_map(|p| Some(Source::parse(&relative(root, p), &fs::read_to_string(p).ok()?)))
        .collect();

    // `#[cfg(test)] mod tests;` makes a test of the whole file it names.
    let tests: HashSet<String> = files.iter().flat_map(test_module_paths).collect();
    for file in &mut files {
        let inside = |t: &String| file.path == format!("{t}.rs") || file.path.starts_with(&format!("{t}/"));
        if tests.iter().any(inside) {
            file.live = file.live.lines().map(|_| "\n").collect();
            file.literals.clear();
        }
    }
    files
}

pub fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || ["target", ".git", "data", "corpus"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() { walk(&path, out) } else { out.push(path) }
    }
}

pub fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// The 1-based lines of `text` on which `word` stands as a whole word.
pub fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    words(text, word).map(|at| line_of(text, at)).collect()
}

/// The 1-based lines of `text` on which `needle` stands, as it is.
pub fn lines_with(text: &str, needle: &str) -> Vec<usize> {
    text.match_indices(needle).map(|(at, _)| line_of(text, at)).collect()
}

/// Each path named after `crate::` or `stockade::`: see [`paths_under`].
pub fn crate_paths(code: &str) -> Vec<(usize, String)> {
    ["crate", "stockade"].iter().flat_map(|root| paths_under(code, root)).collect()
}

/// Each path that begins with `root::`, grouped imports spelled out: `crate::{domain::{id, stock}, clock}` gives `domain::id`,
/// `domain::stock` and `clock`, each with the line on which the whole begins.
pub fn paths_under(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, root) {
        if let Some(rest) = code[at + root.len()..].strip_prefix("::") {
            let mut paths = Vec::new();
            use_tree(rest.trim_start(), "", &mut paths);
            found.extend(paths.into_iter().map(|path| (line_of(code, at), path)));
        }
    }
    found
}

/// Reads one use tree and returns what is left of the text.
fn use_tree<'a>(mut text: &'a str, prefix: &str, out: &mut Vec<String>) -> &'a str {
    if let Some(inner) = text.strip_prefix('{') {
        text = inner.trim_start();
        while !text.is_empty() && !text.starts_with('}') {
            let before = text.len();
            text = use_tree(text, prefix, out).trim_start();
            // `as name`, and whatever else stands before the comma, says nothing about where the path leads.
            let end = text.find([',', '}']).unwrap_or(text.len());
            text = text[end..].strip_prefix(',').unwrap_or(&text[end..]).trim_start();
            if text.len() == before {
                break;
            }
        }
        return text.strip_prefix('}').unwrap_or(text);
    }
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    if end == 0 {
        out.push(prefix.to_owned()); // `*`, or the end of a path
        return text;
    }
    let path = if prefix.is_empty() { text[..end].to_owned() } else { format!("{prefix}::{}", &text[..end]) };
    match text[end..].strip_prefix("::") {
        Some(rest) => use_tree(rest.trim_start(), &path, out),
        None => {
            out.push(path);
            &text[end..]
        }
    }
}

fn words(text: &str, word: &str) -> impl Iterator<Item = usize> {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn strip_comments_and_literals(raw: &str) -> (String, Vec<Literal>) {
    let chars: Vec<char> = raw.chars().collect();
    let mut code = String::with_capacity(raw.len());
    let mut literals = Vec::new();
    let (mut i, mut line) = (0, 1);
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };

    while i < chars.len() {
        let start = i;
        let after_word = i > 0 && is_word(at(i - 1));
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
            code.extend(chars[start..i].iter().map(|&c| blank(c)));
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
            i = i.min(chars.len());
            code.extend(chars[start..i].iter().map(|&c| blank(c)));
        } else if let Some((opens, hashes)) = (!after_word).then(|| raw_string(&chars, i)).flatten() {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let mut end = opens;
            while end < chars.len() && !chars[end..].starts_with(&close) {
                end += 1;
            }
            i = (end + close.len()).min(chars.len());
            literals.push(Literal { line, text: chars[opens..end.min(chars.len())].iter().collect() });
            code.push('"');
            code.extend(chars[start + 1..i].iter().map(|&c| blank(c)));
        } else if at(i) == '"' {
            i += 1;
            let mut text = String::new();
            while i < chars.len() && at(i) != '"' {
                if at(i) == '\\' {
                    text.push(at(i));
                    i += 1;
                }
                text.push(at(i));
                i += 1;
            }
            i = (i + 1).min(chars.len());
            literals.push(Literal { line, text });
            code.push('"');
            code.extend(chars[start + 1..i].iter().map(|&c| blank(c)));
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' && at(i) != '\n' {
                i += 1;
            }
            i = (i + 1).min(chars.len());
            code.extend(chars[start..i].iter().map(|&c| blank(c)));
        } else {
            code.push(at(i));
            i += 1;
        }
        line += chars[start..i].iter().filter(|&&c| c == '\n').count();
    }
    (code, literals)
}

/// If a raw string (`r"`, `br##"`, `cr"`) opens here: where its contents begin, and how many hashes close it.
fn raw_string(chars: &[char], mut i: usize) -> Option<(usize, usize)> {
    if matches!(chars.get(i), Some('b' | 'c')) {
        i += 1;
    }
    if chars.get(i) != Some(&'r') {
        return None;
    }
    let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
    let quote = i + 1 + hashes;
    (chars.get(quote) == Some(&'"')).then_some((quote + 1, hashes))
}

/// Where each `#[cfg(test)]` item begins and ends in code without comments and literals.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items: Vec<(usize, usize)> = Vec::new();
    for (start, marker) in code.match_indices("#[cfg(test)]") {
        if items.last().is_some_and(|&(_, end)| start < end) {
            continue;
        }
        let (mut depth, mut end) = (0i32, code.len());
        for (offset, c) in code[start + marker.len()..].char_indices() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = start + marker.len() + offset + 1;
                break;
            }
        }
        items.push((start, end));
    }
    items
}

fn strip_test_items(code: &str) -> String {
    let mut live = String::with_capacity(code.len());
    let mut from = 0;
    for (start, end) in test_items(code) {
        live.push_str(&code[from..start]);
        live.extend(code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        from = end;
    }
    live.push_str(&code[from..]);
    live
}

/// `src/a/b.rs` saying `#[cfg(test)] mod tests;` → `src/a/b/tests`; `src/a/mod.rs` saying so → `src/a/tests`.
fn test_module_paths(file: &Source) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let dir = if ["mod", "lib", "main"].contains(&name) { parent } else { stem };
    test_items(&file.code)
        .into_iter()
        .filter_map(|(start, end)| {
            let item = file.code[start..end].strip_suffix(';')?;
            let module = item.rsplit_once("mod ")?.1.trim();
            module.chars().all(is_word).then(|| format!("{dir}/{module}"))
        })
        .collect()
}
