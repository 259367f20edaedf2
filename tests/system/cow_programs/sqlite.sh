# needs: sh
"$PYTHON" -S - <<'X'
import os
import sqlite3

for mode in ("wal", "delete"):
    db = sqlite3.connect("data.db")
    db.execute(f"pragma journal_mode={mode}")
    db.execute("create table if not exists t (x)")
    for n in range(50):
        db.execute("insert into t values (?)", (n,))
        db.commit()
    with open("count", "a") as file:
        print(db.execute("select count(*), sum(x) from t").fetchone(), sorted(os.listdir(".")), file=file)
    db.close()
X
