"""Question 1: every claim holds, and every claim is caught when its formula is wrong."""

import importlib.util
import itertools
import json
import math
import re
import subprocess
import sys

import pypdf
import pytest
import torch
from conftest import assert_user_error
from test_plots import full_disk

import options
import theory
from theory import attention, convolution, costs, feature_maps, figures, linear_attention
from theory.checks import Claim

SCRIPT = options.ROOT / "hw2-q1.py"
CLAIMS = [check for checks in theory.CLAIMS.values() for check in checks if check.__name__.startswith("claim_")]


@pytest.fixture(autouse=True)
def short_lengths(monkeypatch):
    monkeypatch.setattr(costs, "TIMED_LENGTHS", (8, 16, 32, 64, 128))
    monkeypatch.setattr(convolution, "SIDES", range(2, 7))


@pytest.fixture
def q1():
    spec = importlib.util.spec_from_file_location("hw2_q1", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(*args):
    command = [sys.executable, SCRIPT, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=options.ROOT, check=False)


# Wrong formulas, as keywords of the claim that must notice; some are mistakes that published answers make.


def weights_without_biases(n_inputs, n_outputs):
    return n_inputs * n_outputs


def swapped_cases(kernel, H, W):
    """Zero where the filter lies and a weight everywhere else."""
    return torch.where(convolution.convolution_matrix(kernel, H, W) == 0, kernel[0, 0], 0.0)


def weight_of_the_pixel(kernel, H, W):
    """w_pq in place of w_(p-a+1)(q-b+1): right in the first row only."""
    M, N = kernel.shape
    where = convolution.convolution_matrix(torch.ones_like(kernel), H, W) != 0
    padded = torch.zeros(H, W, dtype=kernel.dtype)
    padded[:M, :N] = kernel
    return where * padded.flatten()


def flipped_filter(kernel, H, W):
    return convolution.convolution_matrix(kernel.flip(0, 1), H, W)


def column_by_column(kernel, H, W):
    return convolution.convolution_matrix(kernel.T, W, H)


def attention_over_columns(x):
    alpha = torch.softmax(x @ x.T, dim=0)
    return alpha, alpha @ x


def attention_with_positions(image):
    return attention.attention_map(image + torch.arange(image.numel()).view_as(image) / image.numel())


def features_without_half(x, n_terms):
    return torch.cat([x.new_ones(len(x), 1), x, (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1)], dim=1)


def monomials_of_equal_weight(x, n_terms):
    """Every monomial once, with 1 / sqrt(n!) as if it were repeated."""
    features = []
    for degree in range(n_terms):
        for monomial in itertools.combinations_with_replacement(range(x.shape[1]), degree):
            features.append(x[:, list(monomial)].prod(dim=1) / math.sqrt(math.factorial(degree)))
    return torch.stack(features, dim=1)


def one_term_less(features):
    return lambda x, n_terms: features(x, n_terms - 1)


def not_normalised(phi_q, phi_k, values):
    return phi_q @ (phi_k.T @ values)


def normalised_by_columns(phi_q, phi_k, values):
    weights = phi_q @ phi_k.T
    return (weights / weights.sum(dim=0)) @ values


def other_order_exchanged(phi_q, phi_k, values, linear):
    return linear_attention.kernel_attention(*((phi_q, phi_k) if linear else (phi_k, phi_q)), values, linear)


WRONG = {
    convolution.claim_cnn_parameters: [
        {"parameters": weights_without_biases},
        {"side": lambda side, kernel, stride=1: (side - kernel) // stride},
        {"side": lambda side, kernel, stride=1: side // stride},
    ],
    convolution.claim_mlp_parameters: [{"parameters": weights_without_biases}],
    convolution.claim_weight_sharing: [{"inputs_seen": convolution.KERNEL_SIDE**2}],
    attention.claim_attention_rank: [
        {"matrix": lambda W_Q, W_K: W_Q @ W_K.T + torch.eye(len(W_Q))},  # of full rank
        {"matrix": lambda W_Q, W_K: W_K @ W_Q.T},
    ],
    attention.claim_equal_heads: [
        {"transform": lambda W_Q, W_K, B: (W_Q @ B, W_K @ B)},
        {"transform": lambda W_Q, W_K, B: (W_Q @ B, W_K @ torch.linalg.inv(B))},
        {"dimension": lambda n, d: 2 * n * d},
    ],
    convolution.claim_convolution_size: [
        {"output": lambda H, W, M, N: (H, W)},
        {"output": lambda H, W, M, N: (W - N + 1, H - M + 1)},
    ],
    convolution.claim_convolution_matrix: [
        {"matrix": swapped_cases},
        {"matrix": weight_of_the_pixel},
        {"matrix": flipped_filter},
        {"matrix": column_by_column},
        {"nonzero": lambda H, W, M, N: H * W * M * N},
    ],
    convolution.claim_network_parameters: [
        {"cnn": lambda H, W, M, N: M * N + 3 * (H - M + 1) * (W - N + 1) / 4},
        {"dense": lambda H, W, M, N: (H * W + 3) * (H - M + 1) * (W - N + 1) / 4},
        {"dense": lambda H, W, M, N: H * W * convolution.dense_parameters(H, W, M, N)},
    ],
    attention.claim_pixel_attention: [{"attention": attention_over_columns}],
    attention.claim_pixel_permutation: [
        {"attention": attention_with_positions},
        {"attention": attention.edge_map},
        {"convolution": attention.attention_map},
    ],
    attention.claim_attention_cost: [
        {"multiplications": lambda L, D: L**2 * D},
        {"multiplications": lambda L, D: 2 * L * D**2},
        {"memory": lambda L: L * costs.HEAD_SIZE},
    ],
    feature_maps.claim_K_terms: [
        {"features": one_term_less(feature_maps.tensor_features)},
        {"dimension": lambda D, n_terms: D ** (n_terms - 1)},
    ],
    feature_maps.claim_K_terms_once: [
        {"features": one_term_less(feature_maps.monomial_features)},
        {"features": monomials_of_equal_weight},
        {"dimension": lambda D, n_terms: math.comb(D + n_terms, n_terms)},
    ],
    feature_maps.claim_smallest_map: [{"dimension": feature_maps.tensor_dimension}],
    feature_maps.claim_series_error: [
        {"bound": lambda t, n_terms: feature_maps.remainder_bound(t, n_terms + 1)},
        {"bound": lambda t, n_terms: t.abs() ** n_terms / math.factorial(n_terms)},  # without the exponential
        {"features": features_without_half},
    ],
    feature_maps.claim_positive_weights: [{"n_terms": 2}, {"n_terms": 4}],
    linear_attention.claim_kernel_attention: [
        {"attention": not_normalised},
        {"attention": normalised_by_columns},
    ],
    linear_attention.claim_order_of_products: [
        {"linear": lambda L, M, D: L * M * D},
        {"linear": lambda L, M, D: 2 * L**2 * D},
        {"quadratic": lambda L, M, D: L**2 * M},
        {"memory": lambda L, M: L**2},
        {"attention": other_order_exchanged},
    ],
    linear_attention.claim_crossing: [
        {"orders": lambda M, D: M},
        {"softmax": lambda M, D: D},
    ],
    linear_attention.claim_agreement: [
        {"features": one_term_less(feature_maps.monomial_features)},
        {"bound": lambda score, n_terms, values: linear_attention.approximation_bound(score, 2 * n_terms, values)},
    ],
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_claim_holds_and_each_of_its_rows_catches_a_wrong_formula(claim):
    rows, _ = claim(0)
    assert [row.claim for row in rows if not row.holds] == []

    caught = set()
    for wrong in WRONG[claim]:
        failed = {row.claim for row in claim(0, **wrong)[0] if not row.holds}
        assert failed, wrong
        caught |= failed
    assert caught == {row.claim for row in rows}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_claims_do_not_depend_on_the_seed(seed):
    for claim in CLAIMS:
        if claim is not convolution.claim_weight_sharing:  # seconds, and its seed only fills the kernels
            assert all(row.holds for row in claim(seed)[0]), claim.__name__


@pytest.mark.parametrize(
    ("expected", "measured", "options_", "holds"),
    [
        (3, 3, {}, True),
        (3, 4, {}, False),
        (0.0, 1e-13, {"tolerance": 1e-12}, True),
        (0.0, 1e-11, {"tolerance": 1e-12}, False),
        (0.0, math.nan, {"tolerance": 1e-12}, False),
        (2, math.nan, {"relation": "<="}, False),
        ([1, 3], [1, 2], {"relation": "<="}, True),
        ([1, 3], [2, 3], {"relation": "<="}, False),
        (0.5, 0.6, {"relation": ">="}, True),
        (0.5, 0.4, {"relation": ">="}, False),
        ([1, 1], 1, {}, False),  # another number of measurements
    ],
)
def test_when_a_claim_holds(expected, measured, options_, holds):
    assert Claim("1", "", expected, measured, **options_).holds is holds


def test_convolution_matrix_is_the_handouts_formula_with_indices_from_one():
    torch.manual_seed(0)
    H, W, M, N = 5, 6, 2, 3
    kernel = torch.randn(M, N)
    matrix = convolution.convolution_matrix(kernel, H, W)
    H_out, W_out = H - M + 1, W - N + 1
    for a, b in itertools.product(range(1, H_out + 1), range(1, W_out + 1)):
        for p, q in itertools.product(range(1, H + 1), range(1, W + 1)):
            inside = 0 <= p - a < M and 0 <= q - b < N
            expected = kernel[p - a, q - b] if inside else 0.0  # w_(p-a+1)(q-b+1), from one
            assert matrix[(a - 1) * W_out + b - 1, (p - 1) * W + q - 1] == expected


def test_crossing_is_where_the_second_curve_is_last_met():
    lengths = [1, 2, 4, 8, 16]
    linear, quadratic = [5.0 * L for L in lengths], [float(L**2) for L in lengths]
    assert costs.crossing_length(lengths, linear, quadratic) == pytest.approx(5)
    assert costs.crossing_length(lengths, quadratic, linear) is None  # dearer at the end
    assert costs.crossing_length(lengths, linear, [6.0 * L for L in lengths]) is None  # cheaper throughout


def test_exponents():
    lengths = [4, 8, 16, 32]
    assert costs.fitted_exponent(lengths, [3.0 * L**1.5 for L in lengths]) == pytest.approx(1.5)
    assert costs.doubling_exponent([7 * L**2 for L in lengths]) == 2


def test_counts_are_those_of_the_products_and_of_the_largest_tensor():
    def function(a, b):
        return (a @ b).sum()

    assert costs.count_cost(function, (2, 3), (3, 5)) == (2 * 3 * 5, 2 * 5)


def test_numbers_that_the_report_quotes():
    values = {}
    for check in theory.CLAIMS["2021-22"] + theory.CLAIMS["2022-23"]:
        values |= {check.__name__: check(0)[1]}
    assert values["claim_cnn_parameters"]["cnn_params"] == 10_298
    assert values["claim_cnn_parameters"]["conv_params"] == 608
    assert values["claim_mlp_parameters"]["mlp_params"] == 236_310
    assert values["claim_mlp_parameters"]["ratio"] == pytest.approx(22.947, abs=1e-3)
    assert values["claim_weight_sharing"]["distinct_weights"] == 600
    assert values["claim_convolution_matrix"]["matrix_sparsity"] == pytest.approx(1 - 25 / 784)
    odd = values["claim_network_parameters"]["parameter_examples"][1]
    assert (odd["H_out"], odd["features"], odd["unrounded"]) == (25, 144, 156.25)


def test_help_and_errors_come_before_torch():
    code = f"import runpy, sys; sys.argv = ['hw2-q1.py', '--help']; sys.path.insert(0, {str(options.ROOT)!r})\n"
    code += f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    code += "finally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--edition" in done.stdout
    assert done.stdout.rstrip().endswith("False")


@pytest.mark.parametrize("args", [["--edition", "2020-21"], ["-seed", "x"], ["--runs_dir", SCRIPT]])
def test_a_users_mistake_is_one_line_and_exit_code_2(args):
    done = run_script(*args)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "holds" not in done.stdout  # it has only said what it is about to do


def test_one_edition_from_the_command_line(tmp_path):
    done = run_script("-edition", "2022-23", "--runs_dir", tmp_path, "-seed", 7)
    assert done.returncode == 0, done.stderr
    assert "11 of 11 claims hold" in done.stdout
    shown = re.sub(r"\n {6}", " ", done.stdout)
    for answer, claim in (
        ("1.1a  H' = H - M + 1, W' = W - N + 1: ", "1.1a  sizes, of 729"),
        ("1.1b  M[(a - 1) W' + b, (p - 1) W + q] = kernel[p - a + 1, q - b + 1] inside the filter", "1.1b  M x'"),
        ("1.1c  MN + 3 floor(H'/2) floor(W'/2): ", "1.1c  sizes, of 441"),
        ("1.1c  (HW + 3) floor(H'/2) floor(W'/2): ", "1.1c  sizes, of 441"),
        ("1.2   P = softmax(x' x'^T), Z = P x': ", "1.2   P against"),
    ):
        assert shown.count(answer) == 1 and shown.index(answer) < shown.find(claim), (answer, shown)
    folder = tmp_path / "q1" / "2022-23"
    assert [path.name for path in (tmp_path / "q1").iterdir()] == ["2022-23"]

    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (result["edition"], result["question"], result["seed"]) == ("2022-23", "1", 7)
    assert all(claim["holds"] for claim in result["claims"])
    assert {claim["id"] for claim in result["claims"]} == {"1.1a", "1.1b", "1.1c", "1.2"}
    assert {"id", "claim", "expected", "measured", "holds", "tolerance"} <= result["claims"][0].keys()
    assert result["values"]["cnn_params"] == 457
    assert result["figures"] == ["pixel_permutation.pdf"]
    shown = [pypdf.PdfReader(folder / name).pages[0].extract_text() for name in result["figures"]]
    assert "shuffled" in shown[0] and not any("$" in text or "math" in text for text in shown)
    for name in result["figures"]:
        assert (folder / name).read_bytes().startswith(b"%PDF")


def test_all_editions_with_their_figures(q1, tmp_path, monkeypatch, capsys):
    n_values = dict.fromkeys(theory.CLAIMS, 0)

    def counted(year, check):
        def wrapper(seed):
            rows, values = check(seed)
            n_values[year] += len(values)
            return rows, values

        return wrapper

    for year, checks in theory.CLAIMS.items():
        monkeypatch.setitem(theory.CLAIMS, year, tuple(counted(year, check) for check in checks))
    assert q1.main(["-runs_dir", str(tmp_path)]) == 0
    for year, expected in figures.FIGURES.items():
        result = json.loads((tmp_path / "q1" / year / "result.json").read_text(encoding="utf-8"))
        assert result["figures"] == [name for name, _, _ in expected]
        assert len(result["values"]) == n_values[year]  # no two checks of an edition use one name
        assert all((tmp_path / "q1" / year / name).stat().st_size for name in result["figures"])
    assert result["values"]["crossing_length_counted"] == 63
    shown = capsys.readouterr().out
    assert shown.count("claims hold") == 3
    assert max(len(line) for line in shown.splitlines() if "written to" not in line) <= 100


def test_every_part_has_its_answer_from_the_docstring_of_a_formula_under_test():
    for year, checks in theory.CLAIMS.items():
        for part in {claim.id for check in checks if check in CLAIMS for claim in check(0)[0]}:
            answers = theory.answers(year, part)
            assert 1 <= len(answers) <= 3 and len(set(answers)) == len(answers), (year, part)
            assert not any("202" in answer or "\n" in answer for answer in answers)  # the reference is left out
    assert theory.answers("2023-24", "1.3")[0].startswith("Z ~ D^-1 Phi(Q) Phi(K)^T V with D = Diag(")
    assert theory.answers("2021-22", "1.1")[0] == theory.answers("2021-22", "1.2")[0]  # one formula of both


def test_a_row_of_the_table_is_shown_whole_on_lines_that_fit_the_screen(q1, monkeypatch, capsys):
    cells = "1.2", "a claim of more words than its column is wide, " * 3, "<= 1, 22, 333, 4444, 55555, 6", "7", "NO"
    for columns, width in {"100": 100, "80": 80, "20": 68}.items():  # the last is narrower than the numbers alone
        monkeypatch.setenv("COLUMNS", columns)
        q1.print_row(*cells)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width and lines[0].endswith("  7                  NO")
        assert sorted(" ".join(lines).split()) == sorted(" ".join(cells).split())  # no word is cut


def test_a_claim_that_fails_gives_exit_code_1_and_says_no(q1, tmp_path, monkeypatch, capsys):
    checks = theory.CLAIMS["2022-23"]

    def wrong_size(seed):
        return convolution.claim_convolution_size(seed, output=lambda H, W, M, N: (H, W))

    monkeypatch.setitem(theory.CLAIMS, "2022-23", (wrong_size, *checks[1:]))
    assert q1.main(["-edition", "2022-23", "-runs_dir", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "10 of 11 claims hold" in shown and shown.count("  NO\n") == 1
    result = json.loads((tmp_path / "q1" / "2022-23" / "result.json").read_text(encoding="utf-8"))
    assert [claim["id"] for claim in result["claims"] if not claim["holds"]] == ["1.1a"]


def test_a_disk_that_fills_while_a_figure_is_drawn_is_one_line(run_here, tmp_path):
    with full_disk():
        process = run_here("hw2-q1.py", "--edition", "2022-23", "-runs_dir", tmp_path)
    assert_user_error(process, "cannot write", "pixel_permutation.pdf", "make room")
    assert list((tmp_path / "q1" / "2022-23").iterdir()) == []


def test_the_same_seed_gives_the_same_result(q1, tmp_path):
    results = []
    for name in ("first", "second"):
        q1.main(["-edition", "2022-23", "-runs_dir", str(tmp_path / name)])
        result = json.loads((tmp_path / name / "q1" / "2022-23" / "result.json").read_text(encoding="utf-8"))
        results.append({key: value for key, value in result.items() if key != "seconds"})
    assert results[0] == results[1]
