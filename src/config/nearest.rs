//! "Did you mean …?": the known word that a typed one is nearest to. Pure; the command line and
//! the file both ask.

/// The known word nearest to `typed`, if one is near enough to be what was meant: at most a third
/// of its letters differ.
pub(crate) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    known
        .into_iter()
        .map(|word| (distance(&typed, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= word.len().max(typed.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour to make one
/// word of the other (optimal string alignment). Quadratic, and therefore for words of at most 64
/// bytes; longer ones are just far apart.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST_BYTES: usize = 64;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().max(b.len()) > LONGEST_BYTES {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(left != right);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *left == b[j - 1] && a[i - 1] == *right {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_a_stranger_is_not() {
        let check = |typed: &str, expected: Option<&str>| {
            let known = ["mcpServers", "broker", "--listen", "idle_timeout"];
            assert_eq!(nearest(typed, known), expected, "{typed}");
        };
        check("mcpServer", Some("mcpServers"));
        check("mcpservers", Some("mcpServers"));
        check("servers", Some("mcpServers"));
        check("borker", Some("broker"));
        check("--lisetn", Some("--listen"));
        check("idleTimeout", Some("idle_timeout"));
        check("listen", Some("--listen"));
        check("colour", None);
        check("", None);
        check(&"x".repeat(10_000), None);
    }
}
