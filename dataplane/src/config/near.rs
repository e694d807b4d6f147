//! "Did you mean": the known name closest to one that is not.

/// The name in `known` that `name` was probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(64).collect();
    // A third of the letters may be wrong: of two none, or everything short would be close to everything else.
    let most = name.len() / 3;
    let close = known.into_iter().map(|k| (distance(&name, &k.chars().collect::<Vec<_>>()), k));
    close.filter(|(d, _)| *d <= most).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// Letters to insert, remove, replace or swap with their neighbour to make `b` of `a` (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["burst", "cores", "frame_size", "a", "b"];
        let find = |name| nearest(name, known);
        assert_eq!(
            (find("burts"), find("brust"), find("framesize")),
            (Some("burst"), Some("burst"), Some("frame_size"))
        );
        assert_eq!((find("c"), find("queues"), find(""), find("xburstx")), (None, None, None, Some("burst")));
    }
}
