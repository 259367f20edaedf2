# needs: cp mv sed install find
cp -a d e; cp a b; mv a c; mv d f
sed -i s/one/ONE/ b
chmod 700 f; ln -sf b l; ln b h
touch -d 2001-01-01 c
truncate -s 3 f/x
rm -r e/sub
mkdir -p n/m; install -m 755 b n/m/i
tee -a b < c
find . -name y -delete
