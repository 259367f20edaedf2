# needs: sh
printf 'x = 1\n' > m.py
mkdir p
printf 'y = 2\n' > p/__init__.py
"$PYTHON" -S -m compileall -q . --invalidation-mode unchecked-hash
"$PYTHON" -S - <<'X'
import os
import shutil

shutil.move("d", "moved")
os.replace("a", "b")
shutil.copytree("moved", "again")
shutil.rmtree("moved/sub")
os.utime("b", (1, 1))
X
