"""Data files: CSV and TSV, gzip and zip, NPZ and NPY, Parquet."""

import base64
import gzip
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.payloads import Touch

Contents = dict[str, bytes | Callable[[], bytes]]
"""What a file is -> its bytes, or what makes them where that takes long."""
ROWS = "".join(f"{n / 7:.3f},{n % 5},{'no' if n % 2 else 'yes'}\n" for n in range(300))
GOOD = f"a,b,y\n{ROWS}"


def delimited() -> Contents:
    """CSV and TSV that are not as they seem."""
    return {
        "a cell of 40 MB": lambda: b"a,y\n" + b"x" * 40_000_000 + b",no\n",
        "a quoted cell of 40 MB": lambda: b'a,y\n"' + b"x" * 40_000_000 + b'",no\n',
        "a quote that never closes": lambda: b'a,y\n"' + b"1,no\n" * 2_000_000,
        "100,000 quotes in a cell": b'a,y\n"' + b'""' * 50_000 + b'",no\n',
        "quotes inside cells": b'a,y\n1"2"3,no\n' * 50_000,
        "100,000 columns": ",".join(f"c{n}" for n in range(100_000)).encode() + b"\n" + b"1," * 99_999 + b"1\n",
        "two million delimiters in a row": b"a,y\n" + b"," * 2_000_000 + b"\n",
        "a header of 20 MB": b"a" * 20_000_000 + b",y\n1,no\n",
        "a column twice": b"a,a,y\n1,2,no\n",
        "names that are empty": b",,\n1,2,no\n",
        "names of spaces": b" ,\t,y\n1,2,no\n",
        "rows of other lengths": b"a,y\n1,no\n1,2,no\n1\n",
        "the header alone": b"a,y\n",
        "four million line feeds": b"a,y\n" + b"\n" * 4_000_000,
        "lone carriage returns": b"a,y\r" + b"1,no\r" * 1_000,
        "NUL in a cell": b"a,y\n1\0,no\n",
        "NUL everywhere": bytes(1_000_000),
        "UTF-16 cut in the middle": GOOD.encode("utf-16")[:-1],
        "UTF-16 without a mark": GOOD.encode("utf-16-le"),
        "UTF-32 beyond Unicode": b"\xff\xfe\0\0" + b"\xff\xff\xff\x7f" * 1_000,
        "a mark of UTF-16, odd bytes": b"\xff\xfe" + b"abc" * 333,
        "Latin-1": "a,y\nä,no\n".encode("latin-1"),
        "half a surrogate pair": b"a,y\n\xed\xa0\x80,no\n",
        "numbers of 6,000 digits": b"a,y\n" + (b"9" * 6_000 + b",no\n") * 50 + b"1,yes\n",
        "numbers of 130,000 digits": b"a,y\n" + (b"9" * 130_000 + b",no\n") * 20 + b"1,yes\n",
        "numbers beyond every float": b"a,y\n1e999999,no\n-1e999999,yes\n" * 20,
        "infinity and NaN": b"a,y\ninf,no\nnan,yes\n-inf,no\n" * 20,
        "hexadecimal and underscores": b"a,y\n0x1f,no\n1_000,yes\n" * 20,
        "formulas": b"a,y\n=cmd|' /C calc'!A0,no\n@SUM(1),yes\n" * 20,
        "a class for each of 200,000 rows": lambda: b"a,y\n" + b"".join(b"%d,k%d\n" % (n, n) for n in range(200_000)),
        "a text for each of 200,000 rows": lambda: b"a,y\n" + b"".join(b"t%d,no\n" % n for n in range(200_000)),
        "names that clear the terminal": b"\x1b[2J,y\n1,no\n2,yes\n" * 20,
        "a name of 100,000 characters": b"n" * 100_000 + b",y\n1,no\n2,yes\n",
        "dates of the year 99999": b"a,y\n99999-01-01,no\n0000-00-00,yes\n" * 20,
        "every delimiter at once": b"a,b;c|d\te,y\n" + b"1,2;3|4\t5,no\n" * 100,
        "a line of 30 MB of spaces": lambda: b"a,y\n" + b" " * 30_000_000 + b"\n1,no\n",
        "an image": b"\x89PNG\r\n\x1a\n" + bytes(1_000),
        "a PDF": b"%PDF-1.7\n" + b"\xe2\xe3\xcf\xd3" * 50,
        "random bytes": np.random.default_rng(0).bytes(200_000),
        "a pickle": pickle.dumps(Touch()),
        "a tab for a comma (d.tsv)": b"a\ty\n" + b'"1\t"no\n' * 10,
        "TSV of 100,000 columns (d.tsv)": b"\t".join(b"c%d" % n for n in range(100_000)) + b"\n1\n",
    }


def packed() -> Contents:
    """gzip and zip around a table."""
    zeros = gzip.compress(bytes(2**20), 9)
    return {
        "a gzip of zeros, 4 GB (d.csv.gz)": lambda: _deflated(4 * 2**30),
        "a gzip of 3,000 gzips of zeros (d.csv.gz)": zeros * 3_000,
        "a gzip in a gzip (d.csv.gz)": gzip.compress(gzip.compress(GOOD.encode())),
        "a gzip that is cut (d.csv.gz)": gzip.compress(GOOD.encode())[:-9],
        "a gzip with a false checksum (d.csv.gz)": _flipped(gzip.compress(GOOD.encode()), -6),
        "a gzip with bytes behind it (d.csv.gz)": gzip.compress(GOOD.encode()) + b"more",
        "a gzip with a name of 10 MB (d.csv.gz)": _named_gzip(10_000_000),
        "a gzip of nothing (d.csv.gz)": gzip.compress(b""),
        "a gzip of one long line, 120 MB (d.csv.gz)": lambda: gzip.compress(b"a,y\n" + b"x" * 120_000_000, 9),
        "a gzip of empty lines, 120 MB (d.csv.gz)": lambda: gzip.compress(b"a,y\n" + b"\n" * 120_000_000, 9),
        "a gzip of short rows, 120 MB (d.csv.gz)": lambda: gzip.compress(b"a,y\n" + b"1,n\n2,y\n" * 15_000_000, 6),
        "a gzip of delimiters, 100 MB (d.csv.gz)": lambda: gzip.compress(b"a,y\n" + b"," * 100_000_000, 9),
        "a gzip of quotes, 100 MB (d.csv.gz)": lambda: gzip.compress(b"a,y\n" + b'"' * 100_000_001, 9),
        "a zip of zeros, 2 GB (d.csv.zip)": lambda: zipped({"d.csv": _Zeros(2**31)}),
        "a zip with two tables (d.csv.zip)": zipped({"d.csv": b"a", "e.csv": b"b"}),
        "a zip with a path out (d.csv.zip)": zipped({"../../../tmp/d.csv": GOOD.encode()[:20]}),
        "a zip with an absolute path (d.csv.zip)": zipped({"/etc/d.txt": GOOD.encode()}),
        "a zip with a password (d.csv.zip)": _with_flag(zipped({"d.csv": GOOD.encode()}), 0x1),
        "a zip without members (d.csv.zip)": b"PK\x03\x04" + zipped({}),
        "a zip with 60,000 members (d.csv.zip)": lambda: zipped({f"{n}.csv": b"" for n in range(60_000)}),
        "a zip whose members overlap (d.csv.zip)": lambda: _overlapping(),
        "a zip of an unknown method (d.csv.zip)": _with_method(zipped({"d.csv": GOOD.encode()}), 98),
        "a zip with LZMA (d.csv.zip)": zipped({"d.csv": b"a,y\n" * 10}, zipfile.ZIP_LZMA)[:-40],
        "a zip in a zip (d.csv.zip)": zipped({"d.csv.zip": zipped({"d.csv": GOOD.encode()})}),
        "a zip that is cut (d.csv.zip)": zipped({"d.csv": GOOD.encode()})[:-30],
        "a zip with a false checksum (d.csv.zip)": _flipped(zipped({"d.csv": GOOD.encode()}), 40),
        "a zip with a link (d.csv.zip)": _with_link(),
        "bzip2 (d.csv.bz2)": b"BZh91AY&SY" + bytes(50),
    }


def arrays() -> Contents:
    """NPZ and NPY."""
    x, y = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    good = {"x": x + np.arange(20, dtype=np.uint8)[:, None, None], "y": y}
    return {
        "objects, pickled": npz({"x": np.array([Touch()] * 20, dtype=object), "y": y}),
        "a header that is code": _npy_members("{'descr': __import__('os').system('touch it-ran'), 'shape': (1,)}"),
        "a header that calls": _npy_members('exec(\'open("it-ran", "w")\')'),
        "a header of brackets": _npy_members("(" * 9_000),
        "a header of minus signs": _npy_members(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "-" * 9_000 + "1,)}"
        ),
        "a header of 64 KB": _npy_members(" " * 65_000),
        "a header that promises 2^60 values": _npy_members(_header((2**60,))),
        "a header that promises 2^400 values": _npy_members(_header((2**400,))),
        "a header with a negative length": _npy_members(_header((-5,))),
        "a header of 10,000 dimensions": _npy_members(_header((1,) * 2_000)),
        "a header with a record of objects": _npy_members(_header((1,), [("a", "O")])),
        "a header with a nested type": _npy_members(_header((1,), [("a", [("b", [("c", "<f8")])])])),
        "a header with a width of 2^31": _npy_members(_header((1,), "S2147483647")),
        "a header with an unknown type": _npy_members(_header((1,), "zzz")),
        "a header of version 9": _npy_members(_header((1,)), version=b"\x09\0"),
        "zeros, 3 GB": lambda: zipped({"x.npy": _Zeros(3 * 2**30, _npy((3 * 2**30 - 128,), "|u1")), "y.npy": npy(y)}),
        "zeros, 400 MB that fit their header": lambda: npz(
            {"x": np.zeros((100_000, 64, 64), np.uint8), "y": np.arange(100_000) % 2}
        ),
        "a size that the directory hides": _lying_size(npz(good)),
        "members twice": _twice(npz(good)),
        "100 arrays": npz({f"x{n}": y for n in range(100)}),
        "no label": npz({"x": x}),
        "labels of another length": npz({"x": x, "y": y[:5]}),
        "labels that are fractions": npz({"x": x, "y": y / 3}),
        "labels for a million classes": lambda: npz({"x": np.zeros((30_000, 1, 1), np.uint8), "y": np.arange(30_000)}),
        "texts for images": npz({"x": np.array(["a"] * 20), "y": y}),
        "dates for images": npz({"x": np.zeros(20, "datetime64[s]"), "y": y}),
        "complex images": npz({"x": np.zeros((20, 8, 8), complex), "y": y}),
        "NaN in images": npz({"x": np.full((20, 8, 8), np.nan), "y": y}),
        "images without pixels": npz({"x": np.zeros((20, 0, 8)), "y": y}),
        "images of one dimension": npz({"x": np.zeros(20), "y": y}),
        "long doubles": npz({"x": np.ones((20, 8, 8), np.longdouble) * 1e4000, "y": y}),
        "a path as a name": npz({"../x": x, "y": y}),
        "an array without an archive": npy(x),
        "a pickle": pickle.dumps(Touch()),
        "cut short": npz(good)[:-50],
        "a false checksum": _flipped(npz(good), 60),
        "an unknown method": _with_method(npz(good), 98),
        "random bytes": np.random.default_rng(0).bytes(100_000),
    }


def parquet() -> Contents:
    """Parquet."""
    y = ["no", "yes"] * 50
    small = written({"x": np.arange(100.0), "y": y})
    many = 30_000_000
    return {
        "60 million zeros in runs": lambda: written({"x": np.zeros(many), "y": np.zeros(many, np.int8)}),
        "zeros in pages of a gigabyte": lambda: written(
            {"x": np.zeros(many), "y": np.zeros(many, np.int8)},
            use_dictionary=False,
            compression="zstd",
            data_page_size=2**30,
        ),
        "a cell of 500 MB": lambda: written(
            {"x": ["x" * 500_000_000], "y": ["no"]}, compression="zstd", use_dictionary=False
        ),
        "a text of 1 MB in each of 100,000 rows": lambda: written(
            {"x": pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), ["x" * 2**20]), "y": y * 1_000}
        ),
        "3,000 columns of runs": lambda: written({f"x{n}": np.zeros(40_000, np.int8) for n in range(3_000)}),
        "20,000 columns": lambda: written({f"x{n}": [1] for n in range(20_000)}),
        "10,000 row groups": lambda: written({"x": np.arange(10_000.0), "y": y * 100}, row_group_size=1),
        "a footer that promises 2^31 bytes": _flipped(small, -8, 0x70),
        "a footer of zeros": small[:4] + bytes(1_000) + struct.pack("<i", 900) + b"PAR1",
        "a footer of random bytes": small[:4]
        + np.random.default_rng(1).bytes(5_000)
        + struct.pack("<i", 4_900)
        + b"PAR1",
        "a footer of lists without end": small[:4]
        + b"\x29\xfc\xff\xff\xff\xff\x07" * 300
        + struct.pack("<i", 2_100)
        + b"PAR1",
        "a footer of structures, 100,000 deep": small[:4] + b"\x1c" * 100_000 + struct.pack("<i", 100_000) + b"PAR1",
        "groups, 4,000 deep": nested(4_000),
        "lists, 200 deep": written({"x": _nested_lists(200), "y": ["no"]}),
        "a type of Python, pickled": _extension(),
        "metadata of 40 MB": lambda: written(
            pa.table({"x": [1.0], "y": ["no"]}).replace_schema_metadata({"k": "v" * 40_000_000})
        ),
        "a schema of Arrow that is none": written(_with_schema(b"not base64!")),
        "a schema of Arrow of random bytes": written(
            _with_schema(base64.b64encode(np.random.default_rng(2).bytes(900)))
        ),
        "a schema of Arrow for another file": written(
            _with_schema(base64.b64encode(pa.schema([("q", pa.list_(pa.int8()))]).serialize()))
        ),
        "pages that promise 2^30 bytes": lambda: page_field(2, 2**20 - 1),
        "pages with more values than rows": lambda: page_field(5, 2**20 - 1),
        "offsets beyond the end": _overwritten_ints(small),
        "encrypted": small[:-4] + b"PARE",
        "no rows": written({"x": pa.array([], pa.float64()), "y": pa.array([], pa.string())}),
        "a column twice": _double_column(),
        "a column of lists": written({"x": [[1]] * 100, "y": y}),
        "a column of structures": written({"x": [{"a": 1}] * 100, "y": y}),
        "a column of bytes": written({"x": [b"\xff"] * 100, "y": y}),
        "texts that are no UTF-8": _no_utf8(),
        "dates of the year 292,000": written({"x": pa.array([2**63 - 1] * 100, pa.timestamp("us")), "y": y}),
        "decimals of 76 digits": written({"x": pa.array([10**75] * 100, pa.decimal256(76, 0)), "y": y}),
        "a name of spaces": written({" ": np.arange(100.0), "y": y}),
        "a name with NUL": written({"x\0z": np.arange(100.0), "y": y}),
        "a name that clears the terminal": written({"\x1b[2J": np.arange(100.0), "y": y}),
        "cut short": small[:-30],
        "a magic and nothing": b"PAR1PAR1",
        **{f"a bit of byte {at} flipped": _flipped(small, at) for at in (-5, -40, -90, -200, -300, 30, 60)},
    }


# --- ways to write them -----------------------------------------------------------------------------------------------


def written(columns: Mapping[str, Any] | pa.Table, **how: Any) -> bytes:
    """A Parquet file."""
    out = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    pq.write_table(table, out, **how)
    return out.getvalue()


def npz(members: Mapping[str, Any]) -> bytes:
    """An NPZ, deflated."""
    out = io.BytesIO()
    np.savez_compressed(out, **members)
    return out.getvalue()


def npy(array: Any) -> bytes:
    """An array alone."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


class _Zeros:
    """Many zero bytes behind a head, not all at once."""

    def __init__(self, size: int, head: bytes = b"") -> None:
        self.size, self.head = size, head


def zipped(members: Mapping[str, Any], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method, compresslevel=9 if method == zipfile.ZIP_DEFLATED else None) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if isinstance(content, _Zeros):
                _write_zeros(archive, info, content)
            else:
                archive.writestr(info, content)
    return out.getvalue()


def _write_zeros(archive: zipfile.ZipFile, info: zipfile.ZipInfo, zeros: _Zeros) -> None:
    piece = bytes(2**22)
    with archive.open(info, "w", force_zip64=True) as stream:
        stream.write(zeros.head)
        left = zeros.size - len(zeros.head)
        while left:
            left -= stream.write(piece[: min(left, len(piece))])


def _deflated(size: int) -> bytes:
    packer, piece = zlib.compressobj(9, wbits=31), bytes(2**22)
    return b"".join([*(packer.compress(piece) for _ in range(size // len(piece))), packer.flush()])


def _named_gzip(size: int) -> bytes:
    data = gzip.compress(GOOD.encode(), mtime=0)
    return data[:3] + b"\x08" + data[4:10] + b"n" * size + b"\0" + data[10:]


def _flipped(data: bytes, at: int, mask: int = 0x10) -> bytes:
    changed = bytearray(data)
    changed[at] ^= mask
    return bytes(changed)


def _patched(data: bytes, offsets: Mapping[bytes, int], value: int) -> bytes:
    """The archive with a number of two bytes in every header and every entry of the directory."""
    changed = bytearray(data)
    for magic, offset in offsets.items():
        at = changed.find(magic)
        while at >= 0:
            struct.pack_into("<H", changed, at + offset, value)
            at = changed.find(magic, at + 4)
    return bytes(changed)


def _with_flag(data: bytes, flag: int) -> bytes:
    return _patched(data, {b"PK\x03\x04": 6, b"PK\x01\x02": 8}, flag)


def _with_method(data: bytes, method: int) -> bytes:
    return _patched(data, {b"PK\x03\x04": 8, b"PK\x01\x02": 10}, method)


def _overlapping() -> bytes:
    """A thousand entries of the directory for one member (after Fifield 2019)."""
    one = zipped({"d.csv": _Zeros(2**26)})
    at = one.index(b"PK\x01\x02")
    end = one.rindex(b"PK\x05\x06")
    entries = one[at:end] * 1_000
    tail = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1_000, 1_000, len(entries), at, 0)
    return one[:at] + entries + tail


def _with_link() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("d.csv")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def _header(shape: tuple[int, ...], descr: Any = "<f8") -> str:
    return repr({"descr": descr, "fortran_order": False, "shape": shape})


def _npy(shape: tuple[int, ...], descr: str) -> bytes:
    text = _header(shape, descr).encode()
    text += b" " * (128 - 11 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def _npy_members(header: str, version: bytes = b"\x01\0") -> bytes:
    text = header.encode() + b"\n"
    member = b"\x93NUMPY" + version + struct.pack("<H", min(len(text), 65_535)) + text + bytes(64)
    return zipped({"x.npy": member, "y.npy": npy(np.arange(20) % 2)})


def _lying_size(data: bytes) -> bytes:
    changed = bytearray(data)
    struct.pack_into("<I", changed, changed.find(b"PK\x01\x02") + 24, 100)
    return bytes(changed)


def _twice(data: bytes) -> bytes:
    return data.replace(b"y.npy", b"x.npy")


def nested(depth: int) -> bytes:
    """A footer whose schema is groups in groups, written by hand in Thrift's compact protocol."""

    def element(name: bytes, children: int) -> bytes:
        # 3 repetition_type, 4 name, 5 num_children
        return b"\x35\x00\x18" + bytes([len(name)]) + name + (b"\x15\x02" if children else b"") + b"\0"

    leaf = b"\x15\x0a\x25\x00\x18\x01x\0"  # 1 type DOUBLE, 3 repetition, 4 name
    count = depth + 2
    elements = b"\x48\x04root\x15\x02\0" + element(b"g", 1) * depth + leaf
    size = bytes([count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14])
    footer = b"\x15\x02\x19\xfc" + size + elements + b"\x16\x02\x19\x0c\0"
    return b"PAR1" + footer + struct.pack("<i", len(footer)) + b"PAR1"


def _nested_lists(depth: int) -> pa.Array:
    kind = pa.float64()
    for _ in range(depth):
        kind = pa.list_(kind)
    return pa.array([None], kind)


def _with_schema(text: bytes) -> pa.Table:
    return pa.table({"x": np.arange(100.0), "y": ["no", "yes"] * 50}).replace_schema_metadata({"ARROW:schema": text})


def _extension() -> bytes:
    """Before pyarrow 14.0.1 the metadata of such a column was unpickled (CVE-2023-47248)."""
    field = pa.field(
        "x",
        pa.float64(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(Touch(), protocol=0),
        },
    )
    schema = pa.schema([field, ("y", pa.string())])
    return written(pa.Table.from_arrays([pa.array(np.arange(100.0)), pa.array(["no", "yes"] * 50)], schema=schema))


def page_field(field: int, now: int) -> bytes:
    """A file whose first page has another number in the field 2 (size) or 5 (values) of its header."""
    rows = 150_000
    how = {"use_dictionary": False, "compression": "gzip", "write_statistics": False, "data_page_size": 2**17}
    data = written({"x": np.arange(float(rows)), "y": ["no", "yes"] * (rows // 2)}, **how)
    place = 6 if field == 2 else data.index(b"\x2c\x15", 6) + 1
    end = next(at for at in range(place + 1, len(data)) if data[at] < 0x80) + 1
    new = _varint(2 * now)
    assert len(new) == end - place - 1
    return data[: place + 1] + new + data[end:]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _overwritten_ints(data: bytes) -> bytes:
    """Every short number of the footer that could be an offset is the largest of its length."""
    length = struct.unpack("<i", data[-8:-4])[0]
    footer = bytearray(data[-8 - length : -8])
    for at in range(len(footer) - 2):
        if footer[at] == 0x26 and footer[at + 1] >= 0x80 and footer[at + 2] < 0x80:
            footer[at + 1 : at + 3] = b"\xfe\x7f"
    return data[: -8 - length] + bytes(footer) + data[-8:]


def _double_column() -> bytes:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    return written(table)


def _no_utf8() -> bytes:
    texts = pa.StringArray.from_buffers(
        100, pa.py_buffer(np.arange(101, dtype=np.int32).tobytes()), pa.py_buffer(b"\xff" * 100)
    )
    return written({"x": texts, "y": ["no", "yes"] * 50})
