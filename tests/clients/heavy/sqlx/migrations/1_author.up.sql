create table author (id serial primary key, name text not null unique);
insert into author(name) select 'seed' || n from generate_series(1, 3) n;
