//! Text from strangers, made fit to be shown.

/// Characters of a client's name that are shown.
pub(super) const NAME_CHARS: usize = 64;
/// Characters of a URI that are shown: all of any URI that is accepted.
pub(super) const URI_CHARS: usize = 2048;
/// Marks over one letter. More of them would be drawn over the lines above and below.
const MARKS_MAX: usize = 2;

/// At most `max` characters of `text`, without those that are not seen or that turn others round,
/// and with single spaces.
pub(super) fn shown(text: &str, max: usize) -> String {
    let mut shown = String::new();
    let (mut count, mut marks) = (0, 0);
    for c in text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
    {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        let is_second_space = c == ' ' && (shown.is_empty() || shown.ends_with(' '));
        if is_hidden(c) || is_second_space || marks > MARKS_MAX {
            continue;
        }
        if count == max {
            shown.truncate(shown.trim_end().len());
            shown.push('…');
            return shown;
        }
        shown.push(c);
        count += 1;
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Control and format characters (Unicode, general categories Cc and Cf), and letters that are
/// drawn as nothing.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Marks that are drawn over the letter before them and may be heaped up.
fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{e31}' | '\u{e34}'..='\u{e3a}'
        | '\u{e47}'..='\u{e4e}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // one case a line
    fn what_is_shown_of_a_name() {
        let check = |text: &str, expected: &str| assert_eq!(shown(text, 8), expected, "{text:?}");
        check("", "");
        check("Claude", "Claude");
        check("12345678", "12345678");
        check("123456789", "12345678…");
        check("1234567 9", "1234567…");
        check("12345678 ", "12345678…");
        check("  a \r\n\t b  ", "a b");
        check("a\u{202e}b\u{2066}c\u{200b}d\u{feff}", "abcd");
        check("\u{0}\u{7}\u{1b}[1m\u{9b}x", "[1mx");
        check("\u{e0041}\u{3164}\u{2800}\u{ad}", "");
        check("z\u{300}\u{301}\u{302}\u{303}a\u{300}", "z\u{300}\u{301}a\u{300}");
        check("ключ 鍵 🔑", "ключ 鍵 🔑");
    }
}
