"""MovieLens-1M from a folder with the original ratings.dat, movies.dat and users.dat."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from repro.data.files import checksum, file_sha256, one_line, read_bytes, require_file, shown, text_lines
from repro.data.interactions import Source
from repro.data.movielens import Movie, build_source, item_text, read_ratings
from repro.errors import ConfigError, DataError

FIX = "unpack https://files.grouplens.org/datasets/movielens/ml-1m.zip and pass its folder as --data-dir"
FILE_NAMES = ("ratings.dat", "movies.dat", "users.dat")
NUM_RATINGS, NUM_USERS = 1_000_209, 6_040
# A copy that exists in this form: every order is exact, but 295,838 timestamps are interpolated.
INTERPOLATED_RATINGS_SHA256 = "2928ff666c5202fd61c2ad66be94b281ca32c35c8c92f55d50fb63a4ef9de582"
MOVIE_LINE = re.compile(r"(\d{1,18})::(.*\S.*)::([^:|]+(?:\|[^:|]+)*)")
USER_LINE = re.compile(r"(\d{1,18})::[^:]*::[^:]*::[^:]*::[^:]*")


def find_files(data_dir: Path | None = None) -> tuple[Path, ...]:
    """The three files in `data_dir`. Raises ConfigError without a folder and DataError for a missing file."""
    if data_dir is None:
        raise ConfigError("data set ml-1m", "no folder given", f"a folder with {', '.join(FILE_NAMES)}", FIX)
    return tuple(require_file(data_dir / name, FIX) for name in FILE_NAMES)


def read(files: tuple[Path, ...], like_above: float = 3.0) -> Source:
    """The source in file order; label = rating > `like_above`. Raises DataError.

    users.dat only tells which users there should be: a ratings.dat that was cut between two lines lacks some.
    Nothing else of it is read, for demographics are no input of any method.
    """
    ratings_path, movies_path, users_path = files
    ratings = read_ratings(ratings_path, "::", "", FIX)
    _check_users(ratings, _read_users(users_path), ratings_path, users_path)
    interpolated = file_sha256(ratings_path) == INTERPOLATED_RATINGS_SHA256
    return build_source(
        "ml-1m",
        "ML-1M (timestamps partly interpolated)" if interpolated else "MovieLens-1M",
        ratings,
        _read_movies(movies_path),
        like_above=like_above,
        ratings_path=ratings_path,
        first_line=1,
        sha256=checksum(files),
        fix=FIX,
    )


def _read_movies(path: Path) -> list[Movie]:
    _refuse_utf8(path)
    movies: list[Movie] = []
    seen: set[int] = set()
    for number, line in enumerate(text_lines(path, "iso-8859-1", FIX), start=1):
        match = MOVIE_LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}", shown(line), "MovieID::Title::Genre|Genre", FIX)
        movie_id, title, genres = int(match[1]), one_line(match[2]), tuple(match[3].split("|"))
        if movie_id in seen:
            raise DataError(
                f"{path}, line {number}, field MovieID", f"movie {movie_id} again", "each movie once", FIX
            )
        seen.add(movie_id)
        movies.append((movie_id, item_text(title, genres), genres))
    return movies


def _refuse_utf8(path: Path) -> None:
    """Any bytes are valid ISO-8859-1; a converted file shows only in that it is valid UTF-8 beyond ASCII."""
    raw = read_bytes(path)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return
    if raw.isascii():
        return
    line = 1 + next(number for number, text in enumerate(raw.split(b"\n")) if not text.isascii())
    fix = f"iconv -f UTF-8 -t ISO-8859-1 {path} > movies.dat, or {FIX}"
    raise DataError(f"{path}, line {line}", "text in UTF-8", "the original encoding ISO-8859-1", fix)


def _read_users(path: Path) -> set[int]:
    users: set[int] = set()
    for number, line in enumerate(text_lines(path, "iso-8859-1", FIX), start=1):
        match = USER_LINE.fullmatch(line)
        if match is None:
            expected = "UserID::Gender::Age::Occupation::Zip-code"
            raise DataError(f"{path}, line {number}", shown(line), expected, FIX)
        users.add(int(match[1]))
    return users


def _check_users(ratings: np.ndarray, users: set[int], ratings_path: Path, users_path: Path) -> None:
    """Every user rates, every rating's user is known, and the full user list belongs to the full ratings."""
    found = set(np.unique(ratings[:, 0]).tolist())
    if found - users:
        stranger = min(found - users)
        line = int(np.flatnonzero(ratings[:, 0] == stranger)[0]) + 1
        where, expected = f"{ratings_path}, line {line}, field user", f"a user of {users_path.name}"
        raise DataError(where, f"user {stranger} is unknown", expected, FIX)
    if users - found:
        missing = f"no rating of user {min(users - found)} (and {len(users - found) - 1} more users)"
        raise DataError(
            ratings_path, missing, f"ratings of every user in {users_path.name}; the file is cut off", FIX
        )
    if len(users) == NUM_USERS and len(ratings) != NUM_RATINGS:
        raise DataError(
            ratings_path, f"{len(ratings):,} ratings", f"{NUM_RATINGS:,} ratings of {NUM_USERS:,} users", FIX
        )
