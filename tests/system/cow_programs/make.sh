# needs: gcc make
printf 'int main(void){return 0;}\n' > m.c
printf 'm: m.c\n\tgcc -o m m.c\n' > Makefile
make -s
./m
touch m.c
make -s
