//! Cuts text into words, braces and ends of statements, with their positions.
//!
//! It knows quoting and comments and nothing of the schema. Whatever the bytes, it ends: every step consumes
//! at least one character.

use crate::problem::Position;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Word {
        text: String,
        quoted: bool,
    },
    Open,
    Close,
    /// End of a line or a semicolon.
    End {
        newline: bool,
    },
    /// Something that cannot be part of a text: what, and what would be right.
    Bad {
        what: &'static str,
        fix: &'static str,
    },
}

pub(crate) struct Lexer<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    line: u32,
    column: u32,
}

/// Characters that end a bare word and therefore need quotes inside one.
pub(crate) fn needs_quotes(word: &str) -> bool {
    word.is_empty()
        || word.starts_with('#')
        || word.starts_with("//")
        || word.starts_with("/*")
        || word.chars().any(|c| ends_word(c) || c == '\\')
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | ';' | '"' | '\'')
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
            column: 1,
        }
    }

    fn here(&self) -> Position {
        Position {
            line: self.line,
            column: self.column,
        }
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.bump();
        }
    }

    /// After `/*` was read: false if the text ends inside the comment.
    fn skip_block(&mut self) -> bool {
        let mut star = false;
        while let Some(c) = self.bump() {
            if star && c == '/' {
                return true;
            }
            star = c == '*';
        }
        false
    }

    fn bare(&mut self, first: String) -> Token {
        let mut text = first;
        while let Some(c) = self.peek().filter(|&c| !ends_word(c)) {
            text.push(c);
            self.bump();
        }
        Token::Word {
            text,
            quoted: false,
        }
    }

    fn quoted(&mut self, quote: char) -> Token {
        const UNCLOSED: Token = Token::Bad {
            what: "this quote is not closed on its line",
            fix: "close it with the same quote before the line ends",
        };
        let mut text = String::new();
        loop {
            if self.peek().is_none_or(|c| c == '\n') {
                return UNCLOSED;
            }
            match self.bump() {
                None => return UNCLOSED,
                Some(c) if c == quote => return Token::Word { text, quoted: true },
                Some('\\') if quote == '"' => match self.bump() {
                    Some(c @ ('"' | '\\')) => text.push(c),
                    Some('n') => text.push('\n'),
                    _ => {
                        self.skip_line();
                        return Token::Bad {
                            what: "a backslash in double quotes stands before a quote, a backslash or n only",
                            fix: "write \\\\ for a backslash, \\\" for a quote",
                        };
                    }
                },
                Some(c) => text.push(c),
            }
        }
    }

    fn token(&mut self) -> Option<(Position, Token)> {
        loop {
            let at = self.here();
            let token = match self.bump()? {
                '\n' => Token::End { newline: true },
                ';' => Token::End { newline: false },
                '{' => Token::Open,
                '}' => Token::Close,
                '#' => {
                    self.skip_line();
                    continue;
                }
                quote @ ('"' | '\'') => self.quoted(quote),
                '/' if self.peek() == Some('/') => {
                    self.skip_line();
                    continue;
                }
                '/' if self.peek() == Some('*') => {
                    self.bump();
                    if self.skip_block() {
                        continue;
                    }
                    Token::Bad {
                        what: "this comment is not closed",
                        fix: "close it with */",
                    }
                }
                c if c.is_whitespace() => continue,
                c if c.is_control() => Token::Bad {
                    what: "a control character stands here",
                    fix: "remove it; the file must be plain text",
                },
                c => self.bare(c.to_string()),
            };
            return Some((at, token));
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = (Position, Token);

    fn next(&mut self) -> Option<Self::Item> {
        self.token()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Lexer::new(text)
            .filter_map(|(_, token)| match token {
                Token::Word { text, .. } => Some(text),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn words_quotes_and_comments() {
        assert_eq!(words("a b#c # d"), ["a", "b#c"]);
        assert_eq!(words("a /* b \n * / */ c // d\ne"), ["a", "c", "e"]);
        assert_eq!(
            words(r#""two words" 'it "is"' "\"\\""#),
            ["two words", "it \"is\"", "\"\\"]
        );
        assert_eq!(words("10.0.0.0/8 ::/0"), ["10.0.0.0/8", "::/0"]);
        assert_eq!(words("a\r\nb"), ["a", "b"]);
    }

    #[test]
    fn broken_text_is_named_where_it_is() {
        let bad: Vec<_> = Lexer::new("a\n  \"b\nc")
            .filter(|(_, token)| matches!(token, Token::Bad { .. }))
            .collect();
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].0, Position { line: 2, column: 3 });
        assert!(matches!(
            Lexer::new("/* x").next(),
            Some((_, Token::Bad { .. }))
        ));
        assert!(matches!(
            Lexer::new("\u{1}").next(),
            Some((_, Token::Bad { .. }))
        ));
    }
}
