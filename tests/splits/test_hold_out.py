import numpy as np
import pandas as pd
import pytest

from skstack._splits.hold_out import hold_out

WAYS_OUT = "(?s)X_val.*y_val.*validation_fraction"


def check_partition(n_rows, train, held_out):
    assert sorted([*train, *held_out]) == list(range(n_rows))
    assert len(train)
    assert len(held_out)
    for rows in (train, held_out):
        np.testing.assert_array_equal(rows, np.sort(rows))


@pytest.mark.parametrize(("fraction", "size"), [(0.1, 11), (0.25, 26), (7, 7)])
@pytest.mark.parametrize(
    "kind", [{"stratify": False}, {"stratify": True}, {"stratify": True, "ordered": True}]
)
def test_the_requested_number_of_rows(fraction, size, kind):
    y = np.arange(101) % 2
    train, held_out = hold_out(y, fraction=fraction, seed=0, **kind)
    check_partition(101, train, held_out)
    assert len(held_out) == size


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [False, True]])
def test_classes_keep_their_frequencies(labels):
    y = np.array(labels)[(np.arange(200) % 20 == 0).astype(int)]
    for seed in range(5):
        _, held_out = hold_out(y, fraction=0.1, stratify=True, seed=seed)
        assert (y[held_out] == labels[1]).sum() == 1


def test_the_split_depends_on_the_seed():
    y = np.arange(100) % 2
    for stratify in (True, False):
        first, again, other = (
            hold_out(y, fraction=0.2, stratify=stratify, seed=seed)[1].tolist()
            for seed in (0, 0, 1)
        )
        assert first == again
        assert first != other
        assert first != list(range(80, 100))


@pytest.mark.parametrize("y", [np.eye(10)[np.arange(30) % 10], np.arange(30.0)])
def test_multilabel_and_numbers_are_drawn_at_random(y):
    stratify = y.ndim == 2  # asked for, but many columns are never stratified
    check_partition(30, *hold_out(y, fraction=0.1, stratify=stratify, seed=0))


def test_one_column_is_a_class_column():
    y = pd.DataFrame({"y": np.arange(40) % 20 == 0})
    _, held_out = hold_out(y, fraction=0.5, stratify=True, seed=0)
    assert y["y"].to_numpy()[held_out].sum() == 1


@pytest.mark.parametrize(
    ("counts", "fraction", "named"),
    [
        ({"a": 50, "rare": 1}, 0.1, r"rare \(1 row"),
        ({"a": 50, "rare": 3}, 0.1, r"rare \(3 row"),
        ({"a": 50, "rare": 3}, 0.9, r"rare \(3 row"),
        ({"a": 3, "b": 3, "c": 3}, 0.2, "3 classes"),
        ({"a": 3, "b": 3, "c": 3}, 0.8, "3 classes"),
    ],
)
def test_a_class_too_small_for_both_sides_is_an_error(counts, fraction, named):
    y = np.repeat(list(counts), list(counts.values()))
    for seed in range(3):
        with pytest.raises(ValueError, match=WAYS_OUT) as error:
            hold_out(y, fraction=fraction, stratify=True, seed=seed)
        assert error.match(named)
    check_partition(len(y), *hold_out(y, fraction=fraction, stratify=False, seed=0))


@pytest.mark.parametrize("fraction", [0, 0.0, 1.0, -0.1, 1.5, -3, True, "a", None])
def test_invalid_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match="validation_fraction"):
        hold_out(np.zeros(10), fraction=fraction, stratify=False, seed=0)


@pytest.mark.parametrize("kind", [{}, {"ordered": True}, {"groups": [0]}])
def test_no_row_left_to_train_on(kind):
    with pytest.raises(ValueError, match=WAYS_OUT):
        hold_out([1.0], fraction=0.1, stratify=False, seed=0, **kind)
    with pytest.raises(ValueError, match="none to train on"):
        hold_out(
            np.zeros(10), fraction=10, stratify=False, seed=0, ordered=kind == {"ordered": True}
        )


# Order


def test_ordered_rows_hold_out_the_last():
    train, held_out = hold_out(np.arange(20.0), fraction=0.2, stratify=False, ordered=True)
    assert train.tolist() == list(range(16))
    assert held_out.tolist() == [16, 17, 18, 19]


def test_ordered_hold_out_rows_may_lack_a_class_but_training_rows_may_not():
    y = np.array([0, 1] * 8 + [0] * 4)
    _, held_out = hold_out(y, fraction=0.2, stratify=True, ordered=True)
    assert held_out.tolist() == [16, 17, 18, 19]
    with pytest.raises(ValueError, match=r"1 \(4 row"):
        hold_out(np.array([0] * 16 + [1] * 4), fraction=0.2, stratify=True, ordered=True)


# Groups


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_groups_are_not_split(stratify, seed):
    rng = np.random.default_rng(seed)
    groups = rng.choice(list("abcdefghijklmnopqrst"), 300)
    y = rng.integers(0, 3, 300)
    train, held_out = hold_out(y, fraction=0.1, stratify=stratify, seed=seed, groups=groups)
    check_partition(300, train, held_out)
    assert not set(groups[train]) & set(groups[held_out])
    assert 10 <= len(held_out) <= 60  # 20 groups of about 15 rows
    if stratify:
        assert set(y[held_out]) == set(y[train]) == {0, 1, 2}


def test_stratified_groups_contain_every_class():
    groups = np.repeat(np.arange(10), 10)
    y = np.zeros(100, int)
    y[[0, 1, 95, 96]] = 1  # in the first and the last group only
    for seed in range(5):
        train, held_out = hold_out(y, fraction=0.1, stratify=True, seed=seed, groups=groups)
        assert y[train].any()
        assert y[held_out].any()


def test_groups_that_exclude_a_class_are_an_error():
    groups, y = np.repeat([0, 1, 2, 3], 5), np.repeat([0, 0, 0, 1], 5)
    with pytest.raises(ValueError, match=WAYS_OUT):
        hold_out(y, fraction=0.25, stratify=True, seed=0, groups=groups)
    with pytest.raises(ValueError, match="1 group"):
        hold_out(y, fraction=0.25, stratify=True, seed=0, groups=np.zeros(20))


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        (np.repeat([3, 1, 2, 0], [6, 3, 2, 1]), 9),
        (np.array([0, 1, 0, 1, 2, 3, 2, 3, 3]), 4),
        (np.arange(9), 7),
    ],
    ids=["blocks", "interleaved", "single rows"],
)
def test_ordered_groups_are_split_between_groups(groups, first):
    y = np.zeros(len(groups))
    train, held_out = hold_out(y, fraction=0.2, stratify=False, groups=groups, ordered=True)
    assert held_out.tolist() == list(range(first, len(groups)))
    assert not set(groups[train]) & set(groups[held_out])


def test_ordered_groups_that_span_all_rows_are_refused():
    groups = np.arange(10) % 2
    with pytest.raises(ValueError, match=r"groups.*X_val"):
        hold_out(np.zeros(10), fraction=0.2, stratify=False, groups=groups, ordered=True)


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(10), 4)], ids=["rows", "groups"])
def test_each_class_of_several_labels_has_training_rows(groups):
    rare = np.array(["rare"] * 3 + ["a", "b"] * 18 + ["b"])  # in one group
    other = np.arange(40) % 7 == 0
    for seed in range(30):
        drawn = hold_out(rare, fraction=0.4, stratify=False, seed=seed, groups=groups)
        train, held_out = hold_out(
            rare, fraction=0.4, stratify=False, labels=[rare, other], seed=seed, groups=groups
        )
        check_partition(40, train, held_out)
        assert set(rare[train]) == {"rare", "a", "b"}
        assert set(other[train]) == {False, True}
        if set(rare[drawn[0]]) == {"rare", "a", "b"}:  # the seed decides as without labels
            assert train.tolist() == drawn[0].tolist()
        if groups is not None:
            assert not set(groups[train]) & set(groups[held_out])


def test_the_columns_of_a_stratified_indicator_are_labels():
    y = np.column_stack([np.arange(40) % 2, np.arange(40) < 2]).astype(int)
    for seed in range(20):
        train, _ = hold_out(y, fraction=0.4, stratify=True, seed=seed)
        assert y[train].any(axis=0).all()


def test_classes_without_training_rows_are_refused_by_name():
    late = np.array(["early"] * 30 + ["late"] * 10)
    with pytest.raises(ValueError, match=WAYS_OUT) as error:
        hold_out(late, fraction=0.25, stratify=False, labels=[late], ordered=True)
    assert "none of the class late to train on" in str(error.value)


def test_nothing_is_changed():
    y, groups, state = np.arange(20) % 2, np.arange(20), np.random.get_state()[1].copy()  # noqa: NPY002
    hold_out(y, fraction=0.2, stratify=True, seed=0, groups=groups)
    hold_out(y, fraction=0.2, stratify=True, seed=0)
    assert y.tolist() == [0, 1] * 10
    assert groups.tolist() == list(range(20))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
