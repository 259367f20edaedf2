# needs: perl
perl -pi -e 's/one/two/' a d/x
perl -e 'rename "a", "b"; unlink "d/y"; mkdir "n"'
