"""What a training needs, from shapes alone: before any weight is fetched and any card is rented."""
