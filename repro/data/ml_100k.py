"""MovieLens-100K from the files inside the PyPI package recbole 1.2.1, which is never imported."""

from __future__ import annotations

import re
from pathlib import Path

from repro.data.files import checksum, one_line, shown, text_lines
from repro.data.interactions import Source
from repro.data.movielens import Movie, build_source, item_text, read_ratings
from repro.data.packages import DataPackage
from repro.errors import DataError

PACKAGE = DataPackage("ml-100k", "recbole", "1.2.1", "dataset_example/ml-100k")
FIX = PACKAGE.mend
FILE_NAMES = ("ml-100k.inter", "ml-100k.item")
RATINGS_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ITEMS_HEADER = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"


def find_files(data_dir: Path | None = None) -> tuple[Path, ...]:
    """Ratings and items file: in `data_dir`, else inside the installed package. Raises DataError."""
    return PACKAGE.find(FILE_NAMES, data_dir)


def read(files: tuple[Path, ...], like_above: float = 3.0) -> Source:
    """The source in file order; label = rating > `like_above`. Raises DataError."""
    ratings_path, items_path = files
    return build_source(
        "ml-100k",
        "MovieLens-100K",
        read_ratings(ratings_path, "\t", RATINGS_HEADER, FIX),
        _read_movies(items_path),
        like_above=like_above,
        ratings_path=ratings_path,
        first_line=2,
        sha256=checksum(files),
        fix=FIX,
    )


def _read_movies(path: Path) -> list[Movie]:
    """RecBole keeps title, year and genres apart; they are joined to the shape that ML-1M's file has.

    Movie 267 has neither title, year nor genre: "unkonwn" and "unknown" in the file, the text "unknown" here.
    The genre "unknown" is no genre. Movie 1412 has its year in the title and a V in the year's place.
    """
    lines = text_lines(path, "utf-8", FIX)
    if lines[0] != ITEMS_HEADER:
        raise DataError(f"{path}, line 1", f"header {shown(lines[0])}", f"header {shown(ITEMS_HEADER)}", FIX)
    movies: list[Movie] = []
    seen: set[int] = set()
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != 4 or not fields[0].isdecimal() or not fields[1].strip():
            expected = "item_id, movie_title, release_year and class, separated by tabs"
            raise DataError(f"{path}, line {number}", shown(line), expected, FIX)
        movie_id, year = int(fields[0]), fields[2].strip()
        if movie_id in seen:
            raise DataError(
                f"{path}, line {number}, field item_id", f"movie {movie_id} again", "each movie once", FIX
            )
        seen.add(movie_id)
        genres = tuple(genre for genre in fields[3].split() if genre != "unknown")
        title = "unknown" if fields[1] == "unkonwn" else one_line(fields[1])
        with_year = f"{title} ({year})" if re.fullmatch(r"\d{4}", year) else title
        movies.append((movie_id, item_text(with_year, genres), genres))
    return movies
