# needs: busybox
busybox sh -c '
busybox cp a b; busybox mv d e; busybox sed -i s/one/two/ b; busybox rm e/x
echo n > n
busybox mkdir -p q/r; busybox ln -s a l; busybox chmod 600 a'
