//! Selectors of labels, as Kubernetes writes them: `app=web, tier in (a, b), !old`.
//!
//! Labels here have a source: `k8s:app=web`. A key without one, or of the source `any`, is about labels of every source.

use std::iter::Peekable;

/// All of its requirements have to hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    /// `None` for any.
    source: Option<String>,
    key: String,
    condition: Condition,
}

#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Exists,
    Absent,
    In(Vec<String>),
    /// Also where there is no such label.
    NotIn(Vec<String>),
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Not,
    Equal,
    NotEqual,
    Open,
    Close,
    Comma,
}

impl Selector {
    /// `None` for what is none, the empty one included: it would take everything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut tokens = tokens(text)?.into_iter().peekable();
        let mut requirements = vec![requirement(&mut tokens)?];
        while let Some(token) = tokens.next() {
            if token != Token::Comma {
                return None;
            }
            requirements.push(requirement(&mut tokens)?);
        }
        Some(Self(requirements))
    }

    pub(super) fn takes(&self, labels: &[String]) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &[String]) -> bool {
        let mut values = labels.iter().filter_map(|label| self.value(label));
        match &self.condition {
            Condition::Exists => values.next().is_some(),
            Condition::Absent => values.next().is_none(),
            Condition::In(wanted) => values.any(|value| wanted.iter().any(|it| it == value)),
            Condition::NotIn(unwanted) => values.all(|value| unwanted.iter().all(|it| it != value)),
        }
    }

    /// Of a label that it is about.
    fn value<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        // A node's have none.
        let (source, key) = key.split_once(':').unwrap_or(("", key));
        let is_it = self.source.as_ref().is_none_or(|it| it == source) && self.key == key;
        is_it.then_some(value)
    }
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '!' if rest.starts_with("!=") => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            '=' if rest.starts_with("==") => (Token::Equal, 2),
            '=' => (Token::Equal, 1),
            _ => {
                let length = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
                if length == 0 {
                    return None;
                }
                (Token::Word(rest.get(..length)?), length)
            }
        };
        tokens.push(token);
        rest = rest.get(length..)?.trim_start();
    }
    Some(tokens)
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/' | ':')
}

fn requirement<'a>(tokens: &mut Peekable<impl Iterator<Item = Token<'a>>>) -> Option<Requirement> {
    let is_absent = tokens.next_if_eq(&Token::Not).is_some();
    let Some(Token::Word(key)) = tokens.next() else {
        return None;
    };
    let condition = match tokens.peek() {
        None | Some(Token::Comma) if is_absent => Condition::Absent,
        None | Some(Token::Comma) => Condition::Exists,
        // `!app=web` is nothing.
        Some(_) if is_absent => return None,
        Some(_) => match tokens.next()? {
            Token::Equal => Condition::In(vec![value(tokens)]),
            Token::NotEqual => Condition::NotIn(vec![value(tokens)]),
            Token::Word("in") => Condition::In(values(tokens)?),
            Token::Word("notin") => Condition::NotIn(values(tokens)?),
            _ => return None,
        },
    };
    let (source, key) = match key.split_once(':') {
        Some(("" | "any", key)) => (None, key),
        Some((source, key)) => (Some(source.to_owned()), key),
        None => (None, key),
    };
    (!key.is_empty()).then(|| Requirement {
        source,
        key: key.to_owned(),
        condition,
    })
}

/// It may be empty.
fn value<'a>(tokens: &mut Peekable<impl Iterator<Item = Token<'a>>>) -> String {
    let word = tokens.next_if(|token| matches!(token, Token::Word(_)));
    match word {
        Some(Token::Word(word)) => word.to_owned(),
        _ => String::new(),
    }
}

/// In brackets.
fn values<'a>(tokens: &mut Peekable<impl Iterator<Item = Token<'a>>>) -> Option<Vec<String>> {
    tokens.next_if_eq(&Token::Open)?;
    let mut values = vec![value(tokens)];
    loop {
        match tokens.next()? {
            Token::Comma => values.push(value(tokens)),
            Token::Close => return Some(values),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_selected_as_kubernetes_does_it() {
        let labels = ["k8s:app=web", "k8s:tier", "host:app=old", "reserved:world"];
        let labels = labels.map(str::to_owned);
        for (selector, takes) in [
            ("app=web", true),
            ("app==web", true),
            ("app = web", true),
            ("app=old", true),
            ("k8s:app=old", false),
            ("any:app=old", true),
            ("app=db", false),
            ("app!=db", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("app notin (web,x)", false),
            ("other notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("other", false),
            ("tier=", true),
            ("reserved:world", true),
            ("reserved:host", false),
            ("host:world", false),
            ("app=web,tier", true),
            ("app=web,other", false),
            ("app=web , !other", true),
        ] {
            let parsed = Selector::parse(selector).unwrap();
            assert_eq!(parsed.takes(&labels), takes, "{selector}");
        }
        assert!(Selector::parse("app!=web").unwrap().takes(&[]));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in [
            "",
            " ",
            ",",
            "=",
            "=web",
            "!",
            "!app=web",
            "app=web,",
            "app in",
            "app in web",
            "app in (web",
            "app web",
            "app=a b",
            "app>1",
            "app in (a))",
            "k8s:",
            "k8s:=a",
            "ä=1",
            "app=(a)",
            "!!app",
        ] {
            assert_eq!(Selector::parse(bad), None, "{bad}");
        }
    }
}
