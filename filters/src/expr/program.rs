//! The tree as a list of tests, each with the places to go on at when it holds and when it does not.
//!
//! `not` costs nothing: it swaps the two. Jumps only go forward, so a run takes at most one turn per test.

use super::ast::Ast;
use super::primitive::Primitive;
use nke_mbuf::wire::Layers;

/// Targets from here on are the two answers.
const REJECT: u16 = u16::MAX - 1;
const ACCEPT: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Step {
    test: Primitive,
    /// Where to go on: `[if it fails, if it holds]`.
    next: [u16; 2],
}

#[derive(Clone, Debug)]
pub(super) struct Program(Box<[Step]>);

impl Program {
    pub(super) fn compile(ast: &Ast) -> Self {
        // Built back to front, since a step must know where the ones behind it start; then turned round.
        let mut steps = Vec::new();
        emit(ast, REJECT, ACCEPT, &mut steps);
        steps.reverse();
        let last = steps.len() as u16 - 1; // a tree has a test, and at most NODES_MAX
        for target in steps.iter_mut().flat_map(|step| &mut step.next) {
            if *target < REJECT {
                *target = last - *target;
            }
        }
        Self(steps.into())
    }

    #[inline]
    pub(super) fn run(&self, layers: &Layers, len_bytes: usize) -> bool {
        let mut at = 0;
        // The two answers lie outside the list, and so end the loop.
        while let Some(step) = self.0.get(usize::from(at)) {
            at = step.next[usize::from(step.test.matches(layers, len_bytes))];
        }
        at == ACCEPT
    }
}

/// Appends the steps of `ast`, last one first; the entry is the last step appended. Returns its place.
fn emit(ast: &Ast, fails: u16, holds: u16, steps: &mut Vec<Step>) -> u16 {
    match ast {
        Ast::Test(test) => {
            steps.push(Step { test: *test, next: [fails, holds] });
            steps.len() as u16 - 1
        }
        Ast::Not(inner) => emit(inner, holds, fails, steps),
        Ast::All(parts) => parts.iter().rev().fold(holds, |holds, part| emit(part, fails, holds, steps)),
        Ast::Any(parts) => parts.iter().rev().fold(fails, |fails, part| emit(part, fails, holds, steps)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::parser::parse;

    #[test]
    fn jumps_go_forward_and_short_circuit() {
        let program = Program::compile(&parse("ip and not (tcp or udp) and len >= 60").unwrap());
        let next: Vec<_> = program.0.iter().map(|step| step.next).collect();
        assert_eq!(next, [[REJECT, 1], [2, REJECT], [3, REJECT], [REJECT, ACCEPT]]);
    }

    #[test]
    fn a_step_stays_small() {
        assert!(size_of::<Step>() <= 64, "one cache line");
    }
}
