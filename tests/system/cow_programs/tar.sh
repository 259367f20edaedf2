# needs: tar
# In one order, of one time and owner (who is root in a user namespace), so that the archives can be compared too.
tar --sort=name --mtime=@1000000000 --owner=0 --group=0 --numeric-owner -cf t.tar a d
tar xf t.tar -C d
rm -r a
tar xf t.tar
tar tf t.tar > listed
