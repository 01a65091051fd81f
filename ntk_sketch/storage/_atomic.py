"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside `path` to write to; what is there becomes `path` when the block ends.

    It is on the disk before it takes the old file's place, in one step of the file system. Whatever
    happens in the block (an error, an interrupt, a full disk), the old file stays whole and nothing
    is left beside it. Of several processes that write one path, the last one wins.

        with replacing("state.safetensors") as temporary:
            save_file(arrays, temporary)

    Raises:
        OSError: of the kind that fits, such as FileNotFoundError for a folder that is not there;
            before the block is entered where that can be known.
    """
    target = Path(os.path.realpath(path))  # through a link, as `open` writes
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {target}: the folder {target.parent} does not exist. Make it first:"
            f" os.makedirs({os.fspath(target.parent)!r})"
        )
    if target.is_dir():
        raise IsADirectoryError(
            f"cannot write {target}: it is a folder. Give the path of a file, such as"
            f" {target / 'saved.safetensors'}"
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield temporary
        os.chmod(temporary, mode)  # as `open` makes files, whatever the block wrote them with
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {target}: {error.strerror or error}. If a file was there before, it is"
            " unchanged",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
