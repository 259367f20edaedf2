# needs: tar
tar cf t.tar a d
tar xf t.tar -C d
rm -r a
tar xf t.tar
tar tf t.tar > listed
rm t.tar
