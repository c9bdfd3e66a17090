//! Reads GBNF's notation into rules.

use std::collections::BTreeMap;

use super::GbnfError;

/// Longest grammar, bytes.
const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Deepest nesting of groups.
const DEPTH_MAX: usize = 64;
/// Largest number in `{m,n}`; llama.cpp's own bound.
const REPEAT_MAX: u32 = 2000;

/// A rule's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// One character out of these ranges (inclusive).
    Characters(Vec<(char, char)>),
    /// A rule, by its place in the list.
    Rule(usize),
    Sequence(Vec<Expression>),
    Alternatives(Vec<Expression>),
    Repeat {
        body: Box<Expression>,
        min: u32,
        /// `None`: without end.
        max: Option<u32>,
    },
}

/// A grammar's rules; `root` is the place of the first to be followed.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) bodies: Vec<Expression>,
    pub(super) root: usize,
}

/// Reads a grammar.
pub(super) fn read(source: &str) -> Result<Rules, GbnfError> {
    let mut reader = Reader {
        source,
        at: 0,
        names: BTreeMap::new(),
        bodies: Vec::new(),
    };
    if source.len() > SOURCE_BYTES_MAX {
        return Err(reader.error(format!(
            "the grammar has more than {SOURCE_BYTES_MAX} bytes"
        )));
    }
    reader.skip_space(true);
    while reader.peek().is_some() {
        reader.rule()?;
        reader.skip_space(true);
    }
    reader.end()
}

struct Reader<'a> {
    source: &'a str,
    at: usize,
    /// Place of each rule, and where it was first named.
    names: BTreeMap<String, (usize, usize)>,
    bodies: Vec<Option<Expression>>,
}

impl<'a> Reader<'a> {
    fn end(mut self) -> Result<Rules, GbnfError> {
        let Some(&(root, _)) = self.names.get("root") else {
            self.at = 0;
            return Err(self.error("there is no rule named `root`".into()));
        };
        let missing = self
            .names
            .iter()
            .find(|(_, (place, _))| self.bodies[*place].is_none());
        if let Some((name, (_, at))) = missing {
            let reason = format!("the rule `{name}` is not defined");
            self.at = *at;
            return Err(self.error(reason));
        }
        Ok(Rules {
            bodies: self.bodies.into_iter().flatten().collect(),
            root,
        })
    }

    fn rule(&mut self) -> Result<(), GbnfError> {
        let begin = self.at;
        let name = self
            .name()
            .ok_or_else(|| self.error("expected a rule's name".into()))?;
        let place = self.place(name, begin);
        self.skip_space(false);
        if !self.take("::=") {
            return Err(self.error(format!("expected `::=` after `{name}`")));
        }
        self.skip_space(true);
        let body = self.alternatives(0)?;
        if self.bodies[place].replace(body).is_some() {
            self.at = begin;
            return Err(self.error(format!("the rule `{name}` is defined twice")));
        }
        match self.peek() {
            None | Some('\n' | '\r') => Ok(()),
            Some(char) => Err(self.error(format!("unexpected `{char}`"))),
        }
    }

    fn place(&mut self, name: &str, at: usize) -> usize {
        let next = self.bodies.len();
        let (place, _) = *self.names.entry(name.to_owned()).or_insert((next, at));
        if place == next {
            self.bodies.push(None);
        }
        place
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expression, GbnfError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("groups are nested more than {DEPTH_MAX} deep")));
        }
        let mut all = vec![self.sequence(depth)?];
        loop {
            // A rule may go on with `|` on its next line.
            let before = self.at;
            self.skip_space(true);
            if !self.take("|") {
                if depth == 0 {
                    self.at = before;
                }
                break;
            }
            self.skip_space(true);
            all.push(self.sequence(depth)?);
        }
        Ok(match all.pop() {
            Some(only) if all.is_empty() => only,
            Some(last) => {
                all.push(last);
                Expression::Alternatives(all)
            }
            None => Expression::Sequence(Vec::new()),
        })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expression, GbnfError> {
        let mut items: Vec<Expression> = Vec::new();
        loop {
            let item = match self.peek() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.at += 1;
                    Expression::Characters(vec![('\0', char::MAX)])
                }
                Some('(') => {
                    self.at += 1;
                    self.skip_space(true);
                    let group = self.alternatives(depth + 1)?;
                    if !self.take(")") {
                        return Err(self.error("expected `)`".into()));
                    }
                    group
                }
                Some('<') => {
                    return Err(self.error(
                        "tokens in `<…>` are not supported; hint: write their text as a literal"
                            .into(),
                    ));
                }
                Some(char) if is_name(char) => {
                    let begin = self.at;
                    let name = self.name().unwrap_or_default();
                    Expression::Rule(self.place(name, begin))
                }
                _ => break,
            };
            self.skip_space(depth > 0);
            items.push(self.repeated(item, depth)?);
        }
        Ok(match items.pop() {
            Some(only) if items.is_empty() => only,
            Some(last) => {
                items.push(last);
                Expression::Sequence(items)
            }
            None => Expression::Sequence(items),
        })
    }

    /// `item` with the repetition marks that follow it.
    fn repeated(&mut self, mut item: Expression, depth: usize) -> Result<Expression, GbnfError> {
        loop {
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.counts()?,
                _ => return Ok(item),
            };
            self.at += 1;
            if matches!(item, Expression::Repeat { .. }) && depth_of(&item) > DEPTH_MAX {
                return Err(self.error("too many repetition marks".into()));
            }
            item = Expression::Repeat {
                body: Box::new(item),
                min,
                max,
            };
            self.skip_space(depth > 0);
        }
    }

    /// `{m}`, `{m,}`, `{m,n}` or `{,n}`, up to its `}`.
    fn counts(&mut self) -> Result<(u32, Option<u32>), GbnfError> {
        self.at += 1;
        self.skip_space(true);
        let min = self.number()?;
        self.skip_space(true);
        let max = if self.take(",") {
            self.skip_space(true);
            let max = self.number()?;
            self.skip_space(true);
            if min.is_none() && max.is_none() {
                return Err(self.error("expected a number".into()));
            }
            max
        } else if min.is_some() {
            min
        } else {
            return Err(self.error("expected a number".into()));
        };
        if self.peek() != Some('}') {
            return Err(self.error("expected `}`".into()));
        }
        let min = min.unwrap_or(0);
        if max.is_some_and(|max| max < min) {
            return Err(self.error("the second number is smaller than the first".into()));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<Option<u32>, GbnfError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Ok(None);
        }
        let number = self.rest()[..digits].parse().ok();
        match number.filter(|number| *number <= REPEAT_MAX) {
            Some(number) => {
                self.at += digits;
                Ok(Some(number))
            }
            None => Err(self.error(format!("at most {REPEAT_MAX} repetitions are possible"))),
        }
    }

    fn literal(&mut self) -> Result<Expression, GbnfError> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.error("the text is not closed".into())),
                Some('"') => {
                    self.at += 1;
                    return Ok(match items.pop() {
                        Some(only) if items.is_empty() => only,
                        Some(last) => {
                            items.push(last);
                            Expression::Sequence(items)
                        }
                        None => Expression::Sequence(items),
                    });
                }
                Some(_) => {
                    let char = self.character()?;
                    items.push(Expression::Characters(vec![(char, char)]));
                }
            }
        }
    }

    fn class(&mut self) -> Result<Expression, GbnfError> {
        self.at += 1;
        let negated = self.take("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                None => return Err(self.error("the set of characters is not closed".into())),
                Some(']') => {
                    self.at += 1;
                    break;
                }
                Some(_) => {
                    let first = self.character()?;
                    let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
                    if !is_range {
                        ranges.push((first, first));
                        continue;
                    }
                    self.at += 1;
                    let last = self.character()?;
                    if last < first {
                        return Err(self.error("the range ends before it starts".into()));
                    }
                    ranges.push((first, last));
                }
            }
        }
        let ranges = normalized(ranges);
        Ok(Expression::Characters(if negated {
            complement(&ranges)
        } else {
            ranges
        }))
    }

    /// One character, perhaps escaped.
    fn character(&mut self) -> Result<char, GbnfError> {
        let Some(char) = self.peek() else {
            return Err(self.error("the grammar ends inside a text".into()));
        };
        self.at += char.len_utf8();
        if char != '\\' {
            return Ok(char);
        }
        let Some(escape) = self.peek() else {
            return Err(self.error("the grammar ends inside an escape".into()));
        };
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let char = match escape {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '\\' | '"' | '[' | ']' | '-' | '^' | '/' => escape,
            'x' | 'u' | 'U' => {
                let hex = self.rest().get(1..=digits);
                let code = hex
                    .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|hex| u32::from_str_radix(hex, 16).ok())
                    .and_then(char::from_u32);
                match code {
                    Some(code) => code,
                    None => {
                        return Err(self.error(format!(
                            "`\\{escape}` needs {digits} hexadecimal digits of a character"
                        )));
                    }
                }
            }
            _ => return Err(self.error(format!("unknown escape `\\{escape}`"))),
        };
        self.at += escape.len_utf8() + digits;
        Ok(char)
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let length = rest.find(|char| !is_name(char)).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Skips blanks and comments, and line breaks if `lines`.
    fn skip_space(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\n' | '\r') if lines => self.at += 1,
                Some('#') => {
                    let rest = self.rest();
                    self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn error(&self, reason: String) -> GbnfError {
        let before = &self.source[..self.at.min(self.source.len())];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        GbnfError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            reason,
        }
    }
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '_')
}

/// How many repetitions are stacked on each other.
fn depth_of(expression: &Expression) -> usize {
    let mut depth = 0;
    let mut expression = expression;
    while let Expression::Repeat { body, .. } = expression {
        depth += 1;
        expression = body;
    }
    depth
}

/// Sorted, without overlaps.
fn normalized(mut ranges: Vec<(char, char)>) -> Vec<(char, char)> {
    ranges.sort_unstable();
    let mut out: Vec<(char, char)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if first <= *end => *end = (*end).max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// All characters outside of sorted `ranges`.
fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut out = Vec::new();
    let mut next = Some('\0');
    for &(first, last) in ranges {
        if let (Some(from), Some(before)) = (next, previous(first))
            && from <= before
        {
            out.push((from, before));
        }
        next = following(last);
    }
    if let Some(from) = next {
        out.push((from, char::MAX));
    }
    out
}

fn following(char: char) -> Option<char> {
    (char..=char::MAX).nth(1)
}

fn previous(char: char) -> Option<char> {
    ('\0'..=char).nth_back(1)
}
