# needs: module:pip
# Two distributions of our own, built by a backend of our own: nothing comes from elsewhere. pip's work lies in the tree.
export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
unset PYTHONDONTWRITEBYTECODE
export PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1 TMPDIR="$PWD/t"
export HOME="$PWD/t" PATH=/usr/bin:/bin  # it asks rustc for its version, which may be a program that writes at home
export SOURCE_DATE_EPOCH=1000000000  # bytecode then has no times in it (py_compile)
mkdir -p t app/app library
cat > library/backend.py <<'X'
import zipfile


def build_wheel(directory, settings=None, metadata=None):
    with open("project") as file:
        name, version, *needs = file.read().split()
    info = f"{name}-{version}.dist-info"
    heads = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{name}/__init__.py": f"version = '{version}'\n\n\ndef main():\n    print('{name}', version)\n",
        f"{name}/data/{version}.txt": version,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{heads}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files)
    with zipfile.ZipFile(f"{directory}/{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (2001, 1, 1, 0, 0, 0)), text)
    return f"{name}-{version}-py3-none-any.whl"
X
printf '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n' > library/pyproject.toml
touch -d @1000000000 library/backend.py  # which its bytecode has
cp -p library/backend.py library/pyproject.toml app
echo library 1.0 > library/project
echo app 1.0 'library>=1' > app/project
"$PYTHON" -m venv --without-pip v
pip() { "$PYTHON" -m pip --python v/bin/python "$@"; }
pip install ./app ./library
v/bin/app
echo library 2.0 > library/project
pip install --upgrade ./library
v/bin/library
pip uninstall -y app
pip freeze
