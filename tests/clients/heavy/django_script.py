"""Django: migrations, then an application's work. Prints what it sees."""
import os
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings

MODELS = """
from django.db import models
from django.contrib.postgres.fields import ArrayField

class Shop(models.Model):
    name = models.CharField(max_length=50, unique=True)
    town = models.TextField(default="here")

class Item(models.Model):
    shop = models.ForeignKey(Shop, on_delete=models.CASCADE, related_name="items")
    name = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.IntegerField(default=0)
    data = models.JSONField(default=dict)
    tags = ArrayField(models.TextField(), default=list)
    class Meta:
        constraints = [models.UniqueConstraint(fields=["shop", "name"], name="item_name"),
                       models.CheckConstraint(condition=models.Q(stock__gte=0), name="item_stock")]
        indexes = [models.Index(fields=["price"], name="item_price")]

class Label(models.Model):
    text = models.TextField()
    items = models.ManyToManyField(Item, related_name="labels")
"""
# By hand, over what makemigrations finds: data in between, and an index that is no transaction's.
SECOND = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

def fill(apps, schema_editor):
    Shop = apps.get_model("shop", "Shop")
    Shop.objects.bulk_create([Shop(name=f"seed{i}") for i in range(10)])
    Shop.objects.filter(name="seed3").update(town="there")

def empty(apps, schema_editor):
    apps.get_model("shop", "Shop").objects.all().delete()

class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(fill, empty)]
"""
THIRD = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0002_fill")]
    operations = [AddIndexConcurrently("item", models.Index(fields=["stock"], name="item_stock_index")),
                  migrations.RunSQL("create view rich as select * from shop_item where price > 100", "drop view rich")]
"""

folder = tempfile.TemporaryDirectory()
for name, text in {"__init__.py": "", "models.py": MODELS, "migrations/__init__.py": ""}.items():
    Path(folder.name, "shop", name).parent.mkdir(exist_ok=True)
    Path(folder.name, "shop", name).write_text(text)
sys.path.insert(0, folder.name)
sys.dont_write_bytecode = True

database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
    "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
}
settings.configure(
    DATABASES={
        "default": database | {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
        "other": database | {"OPTIONS": {"server_side_binding": True, "isolation_level": 3}},
        "pooled": database | {"OPTIONS": {"pool": {"min_size": 1, "max_size": 3}}},
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
                    "django.contrib.postgres", "shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True, SECRET_KEY="x",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import (DatabaseError, DataError, IntegrityError, OperationalError, connection, connections, models,
                       transaction)
from django.db.models import Avg, Count, F, Max, Q, Sum, Window
from django.db.models.functions import RowNumber, Upper
from shop.models import Item, Label, Shop


def settled():
    """Waits until the standbys have replayed all: what another session has written is not promised to be seen at once."""
    with connection.cursor() as c:
        c.execute("""do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin
            while exists (select from pg_stat_replication where replay_lsn is null or replay_lsn < here) loop
                perform pg_sleep(0.005); end loop; end $$""")


def migrations():
    call_command("makemigrations", "shop", verbosity=0)
    where = Path(folder.name, "shop", "migrations")
    where.joinpath("0002_fill.py").write_text(SECOND)
    where.joinpath("0003_index.py").write_text(THIRD)
    call_command("migrate", verbosity=1, no_color=True, stdout=sys.stdout)
    print(Shop.objects.count())
    call_command("migrate", "shop", "0001", verbosity=1, no_color=True, stdout=sys.stdout)
    print(Shop.objects.count(), "item_stock_index" in connection.introspection.get_constraints(
        connection.cursor(), "shop_item"))
    call_command("migrate", "shop", "zero", verbosity=1, no_color=True, stdout=sys.stdout)
    print([t for t in connection.introspection.table_names() if t.startswith("shop")])
    call_command("migrate", verbosity=0)
    call_command("showmigrations", "shop", no_color=True, stdout=sys.stdout)
    call_command("inspectdb", "shop_item", stdout=sys.stdout)


def work():
    for i in range(4):
        shop = Shop.objects.create(name=f"s{i}")
        Item.objects.bulk_create([Item(shop=shop, name=f"i{n}", price=n * 7, stock=n % 5, data={"n": n, "odd": n % 2 == 1},
                                       tags=[f"t{n % 3}"]) for n in range(500)], batch_size=200)
    print(Item.objects.count(), Item.objects.aggregate(Sum("price"), Avg("stock"), Max("name")))
    print(list(Shop.objects.annotate(n=Count("items"), worth=Sum(F("items__price") * F("items__stock")))
               .filter(n__gt=0).order_by("name").values_list("name", "n", "worth")))
    print(Item.objects.filter(data__odd=True, data__n__gt=490).count(), Item.objects.filter(tags__contains=["t1"]).count(),
          Item.objects.filter(Q(data__n=3) | Q(data__has_key="nothing")).count())
    print(list(Item.objects.annotate(row=Window(RowNumber(), partition_by="shop", order_by="-price"), up=Upper("name"))
               .filter(row__lte=2).order_by("shop__name", "row").values_list("shop__name", "up", "row")))
    print([(s.name, len(s.items.all())) for s in Shop.objects.prefetch_related("items").filter(name__startswith="s")
           .order_by("name")])

    # Server-side cursors, outside and inside a transaction, two at a time.
    print(sum(1 for _ in Item.objects.order_by("id").iterator(chunk_size=70)))
    one, two = Item.objects.iterator(chunk_size=30), Shop.objects.order_by("id").iterator(chunk_size=2)
    print(sum(1 for _ in zip(one, two)))
    one.close(), two.close()
    with transaction.atomic():
        seen = 0
        for item in Item.objects.select_related("shop").filter(shop__name="s1").iterator(chunk_size=100):
            seen += 1
            if seen % 100 == 0:
                Item.objects.filter(pk=item.pk).update(stock=F("stock") + 1)
        print(seen)

    # Transactions inside transactions.
    said = []
    with transaction.atomic():
        Shop.objects.create(name="outer")
        transaction.on_commit(lambda: said.append(Shop.objects.filter(name="outer").exists()))
        try:
            with transaction.atomic():
                Shop.objects.create(name="inner")
                Shop.objects.create(name="s1")
        except IntegrityError as e:
            print(e.__cause__.diag.constraint_name is not None, e.__cause__.sqlstate)
        point = transaction.savepoint()
        Shop.objects.filter(name="outer").update(town="lost")
        transaction.savepoint_rollback(point)
        print(Shop.objects.get(name="outer").town)
        with transaction.atomic(durable=False):
            print(Shop.objects.filter(name="inner").exists())
    print(said)
    try:
        with transaction.atomic():
            Item.objects.filter(shop__name="s0").delete()
            raise KeyError
    except KeyError:
        print(Item.objects.filter(shop__name="s0").count())
    try:
        with transaction.atomic():
            try:
                Item.objects.filter(name="i0").update(stock=-1)
            except IntegrityError as e:
                print(e.__cause__.diag.constraint_name)
            Item.objects.count()
    except transaction.TransactionManagementError:
        print("the transaction is broken")
    print(Item.objects.count())

    # Locks between two connections.
    with transaction.atomic():
        item = Item.objects.select_for_update().get(shop__name="s0", name="i1")
        try:
            with transaction.atomic(using="other"):
                Item.objects.using("other").select_for_update(nowait=True).get(pk=item.pk)
        except OperationalError as e:
            print(e.__cause__.sqlstate)
        with transaction.atomic(using="other"):
            print([i.name for i in Item.objects.using("other").select_for_update(skip_locked=True, of=("self",))
                   .select_related("shop").filter(shop__name="s0").order_by("id")[:3]])
        item.stock = 77
        item.save(update_fields=["stock"])
    settled()
    print(Item.objects.using("other").get(pk=item.pk).stock, Item.objects.get(pk=item.pk).stock)
    with connections["other"].cursor() as c:
        c.execute("show transaction_isolation")
        print(c.fetchone())

    # Its own writes are there at once.
    for i in range(50):
        shop, new = Shop.objects.get_or_create(name=f"own{i}")
        again, newer = Shop.objects.get_or_create(name=f"own{i}")
        Shop.objects.update_or_create(name=f"own{i}", defaults={"town": f"t{i}"})
        shop.refresh_from_db()
        assert (new, newer, again.pk, shop.town) == (True, False, shop.pk, f"t{i}")
        if i % 2:
            shop.delete()
            assert not Shop.objects.filter(name=f"own{i}").exists()
    print(Shop.objects.filter(name__startswith="own").count())

    # Upserts, many-to-many, bulk updates, the rest of the day.
    Shop.objects.bulk_create([Shop(name=f"own{i}", town="upserted") for i in range(10)], update_conflicts=True,
                             update_fields=["town"], unique_fields=["name"])
    print(Shop.objects.filter(town="upserted").count())
    labels = Label.objects.bulk_create([Label(text=t) for t in "abc"])
    items = list(Item.objects.order_by("id")[:50])
    for label in labels:
        label.items.add(*items)
    labels[0].items.remove(*items[:10])
    print([label.items.count() for label in labels], Item.objects.filter(labels__text="a").distinct().count())
    for item in items:
        item.stock += 1000
    print(Item.objects.bulk_update(items, ["stock"], batch_size=20), Item.objects.filter(stock__gte=1000).count())
    print(Item.objects.values_list("name").union(Shop.objects.values_list("name")).count())
    print(Item.objects.in_bulk([items[0].pk, items[1].pk]).keys() == {items[0].pk, items[1].pk})
    print(Item.objects.filter(shop__name="s1", price__lt=20).explain().split("\n")[0] != "")
    user = User.objects.create_user("someone", password="secret")
    print(User.objects.get(username="someone").check_password("secret"), user.has_perm("shop.add_item"))
    session = SessionStore()
    session["cart"] = [1, 2, 3]
    session.save()
    print(SessionStore(session.session_key)["cart"])
    with connection.cursor() as c:
        c.execute("select name, price from rich order by price desc, name limit %s", [2])
        print(c.fetchall())
        c.executemany("update shop_shop set town = %s where name = %s", [(f"em{i}", f"s{i}") for i in range(4)])
        print(c.rowcount)
    settled()
    print([Shop.objects.using("pooled").get(name=f"s{i}").town for i in range(4)])
    try:
        Shop.objects.create(name="x" * 99)
    except DataError as e:
        print(e.__cause__.sqlstate)
    print(Shop.objects.extra(where=["name = 's1'"]).count())
    try:
        with connection.cursor() as c:
            c.execute("selekt")
    except DatabaseError as e:
        print(e.__cause__.sqlstate)
    settled()
    connections["default"].close()
    print(Shop.objects.filter(name="s1").exists(), connection.is_usable())
    call_command("sqlsequencereset", "shop", no_color=True, stdout=sys.stdout)
    call_command("flush", interactive=False, verbosity=0)
    print(Shop.objects.count(), Item.objects.count(), User.objects.count())


migrations()
work()
connections["pooled"].close_pool()
